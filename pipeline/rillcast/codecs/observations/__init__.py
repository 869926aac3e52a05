"""Observation records, in every format that they may have, to columns."""
