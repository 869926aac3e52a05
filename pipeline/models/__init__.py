"""Models by name: the registry, the places that hold one, and references to what is in it."""
