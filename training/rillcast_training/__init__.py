"""Rillcast training: recurrent quantile forecasters in PyTorch, exported as one ONNX bundle each."""
