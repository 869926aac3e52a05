"""Where Rillcast runs: container, Kubernetes, compose, Prometheus, Grafana. Not part of the package."""
