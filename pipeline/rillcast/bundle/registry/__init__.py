"""Models by name: the registry, the storage that holds it, and references to what is in it."""
