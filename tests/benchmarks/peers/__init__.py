"""Scripts of neighbours, each run by the interpreter of a virtual environment of its own.

A script imports nothing of Rillcast but `common`, which stands beside it and needs numpy and ONNX Runtime alone.
"""
