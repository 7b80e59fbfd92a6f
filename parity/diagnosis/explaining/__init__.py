"""The cause of a culprit, by experiment."""
