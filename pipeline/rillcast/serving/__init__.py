"""A served model (engine, publisher, store), and which model serves which partition.

Rule: exactly one model serves a partition.
Does not know: where models come from, transports, commits.
"""
