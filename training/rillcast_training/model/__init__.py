"""The forecaster as a PyTorch module: features, cells, head, calibration, and the layout of its state rows.

Rule: `forward` over a sequence and `step` event by event compute the same numbers.
Does not know: files, data sets, the training loop.
"""
