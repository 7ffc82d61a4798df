package worker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

const (
	opNATS        = "nats"
	natsUpTimeout = 20 * time.Second
	natsUpPoll    = 20 * time.Millisecond
)

// NATSArgs configure a member of a NATS cluster with JetStream, as somebody runs it who has one already: it asks nobody who he is.
type NATSArgs struct {
	Name    string           `json:"name"`    // of the member
	Listen  netip.AddrPort   `json:"listen"`  // of clients
	Cluster netip.AddrPort   `json:"cluster"` // of the other members
	Routes  []netip.AddrPort `json:"routes"`  // where the others listen for members
	Dir     string           `json:"dir"`     // that it finds again when it is started again
}

// NATS starts the member of a worker of that role and returns when it takes clients.
func (c *Client) NATS(ctx context.Context, a NATSArgs) error { return c.Call(ctx, opNATS, a, nil) }

// natsMember is the worker that plays a member of a NATS cluster.
type natsMember struct{ ns *natsserver.Server }

func (m *natsMember) start(_ context.Context, a NATSArgs) (None, error) {
	opts := &natsserver.Options{
		ServerName: a.Name, Host: a.Listen.Addr().String(), Port: int(a.Listen.Port()), NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: a.Dir, DisableJetStreamBanner: true,
		Cluster: natsserver.ClusterOpts{Name: "lab", Host: a.Cluster.Addr().String(), Port: int(a.Cluster.Port())},
	}
	for _, r := range a.Routes {
		opts.Routes = append(opts.Routes, &url.URL{Scheme: "nats-route", Host: r.String()})
	}
	ns, err := natsserver.NewServer(opts)
	if err != nil {
		return None{}, fmt.Errorf("NATS: %w", err)
	}
	ns.Start()
	m.ns = ns
	if !ns.ReadyForConnections(natsUpTimeout) {
		return None{}, errors.New("NATS: it did not start in time")
	}
	return None{}, nil
}

func (m *natsMember) stop() error {
	if m.ns != nil {
		m.ns.Shutdown()
		m.ns.WaitForShutdown()
	}
	return nil
}
