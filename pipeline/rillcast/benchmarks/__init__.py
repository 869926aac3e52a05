"""What `rillcast bench` measures: what users size their deployment with.

Rule: ratios are taken within one run, and the machine is part of every result.
"""
