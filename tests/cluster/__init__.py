"""A real Kubernetes control plane for the manifests and the chart: `make test-cluster`."""
