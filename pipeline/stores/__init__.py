"""State stores: what keeps the streams' state when the process ends."""
