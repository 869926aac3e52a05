"""What a commit holds, in which order it is written, and how a partition comes back after a crash or a rebalance.

Rule: state is never stored ahead of the committed position, and a position is committed only after its results.
Does not know: which store or client is in use, or how results are encoded.
"""
