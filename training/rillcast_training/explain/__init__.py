"""Why a forecaster says what it says, and how far its memory reaches: `rillcast explain`. See docs/explain.md."""
