"""Tables to series, segments and training windows; built-in data sets and the synthetic generator.

Rule: an observation at or after a series' cut is never trained on.
Does not know: networks, losses.
"""
