//go:build tools

// Package tools pins the proxy of the network faults that `make chaos-network` builds.
package tools

import _ "github.com/Shopify/toxiproxy/v2/cmd/server"
