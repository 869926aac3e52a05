"""State stores: they keep pages of stream state when the process ends.

Rule: a page is written with the position that it belongs to, and read back whole or not at all.
Does not know: what is in a row of state, or when a commit is due.
"""
