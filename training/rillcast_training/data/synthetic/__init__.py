"""A documented, seeded generator of time series for tests and pretraining; see `docs/synthetic.md`."""
