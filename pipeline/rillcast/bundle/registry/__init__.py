"""Models by name: the registry, its storage, and references to its models."""
