"""Finds where two ports of a network first part, and why."""
