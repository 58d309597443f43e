"""Corrections: planned, compared with what the tool holds now, applied, and undone.

Takes labels, gold or verdicts; a source proposes what is right (`sources`, `merged`), and a plan says what to
do about it (`plan`). `apply` and `undo` write it to the tool through the journal, and return what was
written, what was left because it had been edited, and what failed.
"""
