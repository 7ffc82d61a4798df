package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"
)

// Role is what a process is.
type Role string

// The roles.
const (
	Function   Role = "function"
	Rendezvous Role = "rendezvous"
	Relay      Role = "relay"
)

// Roles returns every role.
func Roles() []Role { return []Role{Function, Rendezvous, Relay} }

// Run is the life of a worker process: it answers requests from in on out until in ends.
func Run(ctx context.Context, role Role, in io.Reader, out io.Writer) error {
	var ops map[string]op
	var stop func() error
	switch role {
	case Function:
		f := &function{}
		ops, stop = f.ops(), f.stop
	case Rendezvous:
		r := &daemon{}
		ops, stop = map[string]op{opRendezvous: handle(r.rendezvous)}, r.stop
	case Relay:
		r := &daemon{}
		ops, stop = map[string]op{opRelay: handle(r.relay)}, r.stop
	default:
		return fmt.Errorf("worker: no role %q", role)
	}
	maps.Copy(ops, map[string]op{opUsage: handle(usage)})
	return errors.Join(serve(ctx, in, out, ops), stop())
}

// None stands for no arguments or no result.
type None struct{}

// now is the time of day as the protocol has it.
func now() int64 { return time.Now().UnixNano() }

const opUsage = "usage"

// Usage is what a process has used since its start.
type Usage struct {
	CPU         time.Duration `json:"cpu"` // user and system
	MaxRSSBytes int64         `json:"max_rss_bytes"`
}

// Usage asks what the process has used so far.
func (c *Client) Usage(ctx context.Context) (u Usage, err error) {
	return u, c.Call(ctx, opUsage, None{}, &u)
}
