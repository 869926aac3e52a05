"""The view from outside the process: metrics, health, logs, the live view, the forecast cache, and HTTP.

Rule: it observes and never decides. No forecast depends on anything in this package.
Does not know: Kafka, stores, commits.
"""
