"""A registry of models in a real S3: `make test-s3`."""
