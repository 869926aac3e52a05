"""Records: observation bytes to columns, forecast columns to bytes; `docs/records.md` describes both in prose.

Rule: one format, one file. A record that cannot be decoded becomes a rejection with a reason, never an exception.
Does not know: topics, offsets, models.
"""
