// Package footprint is what the experiment of that name and its lean function say to each other, by the protocol of package rpc. It does
// nothing itself, so that the function links no more than it must.
package footprint

import "github.com/fnwire/fnwire/experiments/workload"

// The operations.
const (
	OpJoin    = "join"    // JoinArgs
	OpSend    = "send"    // SendArgs; Moved
	OpReceive = "receive" // Moved
)

// JoinArgs say which job to join.
type JoinArgs struct {
	URL  string `json:"url"`
	Key  string `json:"key"`
	Name string `json:"name"`
}

// SendArgs say what to send to whom.
type SendArgs struct {
	To     string          `json:"to"`
	Path   string          `json:"path"`
	Source workload.Source `json:"source"`
}

// Moved is a state that was sent or received.
type Moved struct {
	Bytes  int64  `json:"bytes"`
	Digest string `json:"digest"`
	Path   string `json:"path,omitempty"`
}
