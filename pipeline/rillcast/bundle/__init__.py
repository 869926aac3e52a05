"""The model file: its contract, its metadata, its checks, and where it is kept.

Rule: a bundle that breaks a clause of the contract (`docs/bundle.md`) is refused before it is run.
Does not know: streams, devices, transports.
"""
