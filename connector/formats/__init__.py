"""Exchange formats: files of labels, read into labels and written from the label store.

Takes a file in a format of ours or of another tool; returns labels as the label store does, or rows that were
rejected, with the reason.
"""
