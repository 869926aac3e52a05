"""A served model (engine, publisher, store), and which model serves which partition.

Rule: each partition is served by exactly one model.
Does not know: where models come from, transports, commits.
"""
