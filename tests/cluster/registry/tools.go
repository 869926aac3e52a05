//go:build tools

// Package tools pins the registry to which `make test-cluster` pushes the chart.
package tools

import _ "github.com/google/go-containerregistry/cmd/registry"
