//go:build tools

// Package tools pins the object store that `make test-s3` builds.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
