"""A runnable script for each culprit."""
