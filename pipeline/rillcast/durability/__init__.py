"""What a commit carries and in which order, and how a partition comes back after a crash or a rebalance.

Rule: stored state is never ahead of the committed position, and a position is committed only after its results.
Does not know: which store or client is in use, or how results are encoded. README.md draws the order.
"""
