// Package nats names what the figures stand beside, so that go.mod keeps its version.
package nats

import _ "github.com/nats-io/nats-server/v2/server"
