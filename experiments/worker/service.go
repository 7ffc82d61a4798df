package worker

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/fnwire/fnwire/experiments/service"
)

const opService = "service"

// ServiceArgs configure a forwarder in front of a store.
type ServiceArgs struct {
	Listen netip.AddrPort `json:"listen"`
	Server string         `json:"server"` // the store's own address
	Model  service.Model  `json:"model"`
}

// Service starts the forwarder of a worker of that role and returns when it listens. It forwards until the process ends.
func (c *Client) Service(ctx context.Context, a ServiceArgs) error {
	return c.Call(ctx, opService, a, nil)
}

func (d *daemon) service(ctx context.Context, a ServiceArgs) (None, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", a.Listen.String())
	if err != nil {
		return None{}, fmt.Errorf("service: %w", err)
	}
	d.start(func(ctx context.Context) error { return a.Model.Serve(ctx, l, a.Server) })
	return None{}, nil
}
