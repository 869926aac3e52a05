"""Observation records in every format to columns: a file a format, one decoder for all."""
