"""Rillcast training: recurrent quantile forecasters in PyTorch, exported as one ONNX bundle each."""

import rillcast  # noqa: F401  it switches off what ONNX Runtime would report, before modules here load ONNX Runtime
