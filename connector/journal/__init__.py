"""The journal of corrections: what was sent to the labeling tool, and what was there before.

Takes corrections about to be sent and their outcomes, and keeps them in authenticated, write-once segments
beside the label store. Returns runs to be continued or undone, and which plan wrote which annotation.
"""
