"""Experiments behind the figures in the docs. Not in the wheel."""
