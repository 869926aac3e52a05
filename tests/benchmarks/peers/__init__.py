"""Scripts of neighbours, each run by the interpreter of its own virtual environment.

A script imports nothing of Rillcast but `common` in this folder, which needs only numpy and ONNX Runtime.
"""
