"""The module as one ONNX bundle, the proof that both compute the same, and the way back.

Rule: a bundle appears at its path only after parity with the module is proven.
Does not know: how the module was trained.
"""
