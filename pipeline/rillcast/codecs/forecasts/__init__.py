"""Columns of forecasts to records in every format, and back for readers."""
