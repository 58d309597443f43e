"""The label store: every version of every annotation, in a Delta table.

Takes the changed tasks of a pull and appends them in one commit. Returns tasks, annotations and labels as of
any version, as frames.
"""
