"""Records: observation bytes to columns, forecast columns to bytes. `docs/records.md` is the same in prose."""
