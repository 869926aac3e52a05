"""The model file: its contract, its metadata, its checks, and the registry that keeps it.

Rule: a bundle that breaks a clause of the contract (`docs/bundle.md`) is refused before it runs.
Does not know: streams, devices, transports.
"""
