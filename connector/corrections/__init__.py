"""Corrections: planned, compared with what the tool holds now, journaled before they are sent, undone.

A source proposes what is right (`sources`, `merged`), a plan says what to do about it (`plan`), and each kind
of correction knows how it is checked, sent, found again and taken back (`actions`). `apply` and `undo` go
through a plan with a journal that nobody can change unseen (`journal`).
"""
