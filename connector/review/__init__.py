"""Review samples: drawn with known probabilities, queued in the tool, and judged.

Takes labels or tasks and a size; returns a sample, and from reviewers' verdicts the error rate of all labels.
"""
