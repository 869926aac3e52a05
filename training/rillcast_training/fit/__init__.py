"""The training loop, its options and losses, and the search for the best size.

Does not know: how a bundle is exported, or how it is served.
"""
