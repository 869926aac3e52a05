"""Explanations of a forecast, and the reach of a forecaster's memory: `rillcast explain`. See docs/explain.md."""
