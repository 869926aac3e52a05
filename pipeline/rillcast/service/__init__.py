"""One process: how it is built from the settings, its loop, and the supervisor of several.

Rule: one thread runs the loop; the model may step a poll in one other thread. Whatever touches state waits for that
step.
Does not know: which transport, store or client is in use, or what a model computes.
"""
