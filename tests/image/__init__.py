"""The container image, built and run: `make test-image`."""
