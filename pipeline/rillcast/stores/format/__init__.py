"""The bytes of stored state: rows packed into pages, and pages framed with a checksum and a version.

Rule: every format that a release has written stays readable.
Does not know: where the bytes are kept.
"""
