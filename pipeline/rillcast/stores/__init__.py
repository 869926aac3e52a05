"""State stores: they keep pages of stream state when the process ends.

Rule: a page is written with the position that it belongs to, and read back whole or not at all.
Does not know: the meaning of a row of state, or when a commit is due.
"""
