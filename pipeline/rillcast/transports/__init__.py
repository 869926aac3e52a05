"""Sources and sinks: a file, or Kafka through one of two clients.

Rule: every source and sink passes the same conformance suite (`tests/conformance/test_sources_and_sinks.py`).
Does not know: what a record means.
"""
