"""What of a result the world sees: forecasts, revisions, anomalies, dead letters, traces.

Rule: whatever is published is a function of the event and its stream, so a replay publishes the same records.
Does not know: transports' names, commits, recovery.
"""
