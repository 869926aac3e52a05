"""Publishes results: forecasts, revisions, anomalies, dead letters, trace contexts.

Rule: a published record is a function of the event and its stream, so a replay publishes the same records.
Does not know: transports' names, commits, recovery.
"""
