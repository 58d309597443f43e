"""The line around a labeling tool."""
