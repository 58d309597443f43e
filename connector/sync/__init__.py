"""Sync: bucket, labeling tool and label store brought into step.

Takes raw data and the tool's project; pushes items as tasks, pulls annotations into the label store. Returns
what was pushed, pulled and rejected, and whether all three agree.
"""
