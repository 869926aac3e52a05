"""Another model takes over from the one that serves, without a stop.

Rule: a partition changes its model between two commits, at one offset, and never within a poll.
Does not know: transports, records, what a model computes. README.md names the states of a roll-out.
"""
