"""The training loop, its options and losses, and the search for the size that pays.

Does not know: how a bundle is exported, or how it is served.
"""
