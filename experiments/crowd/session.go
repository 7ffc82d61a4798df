package crowd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/relay"
)

const burst = 32 // packets that are sent at a time, as QUIC does

// leg is an instance's session at the relay, on a socket of its own.
type leg struct {
	*relay.Client
	socket *udpx.Conn
}

func (l *leg) close() {
	if l != nil {
		_ = l.socket.Close() // nothing is to be saved
	}
}

// Bind gives every instance a session at the first relay that its join told of, some at a time, and returns how they are addressed there. It can
// be called once. A session ends with the token of the join, which holds for five minutes at least.
func (c *Crowd) Bind(ctx context.Context, _ struct{}) ([]ident.Short, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.instances) == 0 || c.instances[0].leg != nil {
		return nil, errors.New("crowd: nobody has joined, or all are bound")
	}
	shorts := make([]ident.Short, len(c.instances))
	life := c.outlive(ctx)
	all, bctx := errgroup.WithContext(ctx)
	all.SetLimit(joining)
	for i, in := range c.instances {
		all.Go(func() error {
			pub, err := ident.PublicKey(in.id.Peer)
			if err != nil {
				return err
			}
			shorts[i] = ident.ShortOf(in.Job(), pub)
			return c.bind(bctx, life, in)
		})
	}
	if err := all.Wait(); err != nil {
		return nil, fmt.Errorf("crowd: %w", err)
	}
	return shorts, nil
}

// bind gives one a session that lasts until life ends.
func (c *Crowd) bind(ctx, life context.Context, in *instance) error {
	if len(in.relay) == 0 {
		return errors.New("bind: the rendezvous knows no relay")
	}
	r := in.relay[0]
	socket, err := udpx.Listen("udp4", netip.AddrPortFrom(netip.IPv4Unspecified(), 0))
	if err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	in.leg = &leg{socket: socket, Client: relay.NewClient(relay.Config{
		ID: r.ID, Addr: r.Addr, Token: r.Token, Identity: in.id, Job: in.Job(),
		Send: func(to netip.AddrPort, b []byte, seg int) error { return socket.Write(b, seg, 0, to) },
	})}
	c.running.Go(func() { _ = in.leg.Run(life) }) // always nil
	c.running.Go(func() { c.read(in.leg) })
	select {
	case <-in.leg.Ready():
		return nil
	case <-ctx.Done():
		_, err := in.leg.State()
		return errors.Join(fmt.Errorf("bind: %w", ctx.Err()), err)
	}
}

// read takes what comes for a leg until its socket is closed.
func (c *Crowd) read(l *leg) {
	b := udpx.Batch{Buf: make([]byte, udpx.BufferBytes)}
	for l.socket.Read(&b) == nil {
		for packet := range slices.Chunk(b.Buf[:b.N], max(b.Seg, 1)) {
			if _, _, _, data := l.HandlePacket(packet); data {
				c.packets.Add(1)
			}
		}
	}
}

// ForwardArgs say what is sent by the relay: by the first instances of the crowd, to one each.
type ForwardArgs struct {
	To    []ident.Short `json:"to"`
	Bytes int           `json:"bytes"` // of a packet
	Rate  int           `json:"rate"`  // packets a second, of all; a sender that falls behind catches up
	For   time.Duration `json:"for"`
}

// Check tells what is wrong with them.
func (a ForwardArgs) Check() error {
	if len(a.To) == 0 || a.Bytes < 1 || a.Bytes > relay.MaxPacket || a.Rate < 1 || a.For <= 0 || a.For > time.Minute {
		return fmt.Errorf("crowd: %d packets a second of %d bytes to %d for %v: want 1 to %d bytes and at most a minute", a.Rate, a.Bytes, len(a.To), a.For, relay.MaxPacket)
	}
	return nil
}

// due is when the i-th burst of a sender is, from the first.
func (a ForwardArgs) due(i int) time.Duration {
	return time.Duration(float64(i) * burst * float64(len(a.To)) / float64(a.Rate) * float64(time.Second))
}

// Forward sends, and returns how many packets the sockets took.
func (c *Crowd) Forward(ctx context.Context, a ForwardArgs) (int64, error) {
	if err := a.Check(); err != nil {
		return 0, err
	}
	c.mu.Lock()
	instances := c.instances
	c.mu.Unlock()
	if len(instances) < len(a.To) || instances[len(a.To)-1].leg == nil {
		return 0, fmt.Errorf("crowd: %d are to send, but have no sessions", len(a.To))
	}
	sent := make([]int64, len(a.To))
	all, fctx := errgroup.WithContext(ctx)
	began := time.Now()
	for i, to := range a.To {
		all.Go(func() error {
			b := make([]byte, burst*a.Bytes)
			for j := 0; a.due(j) < a.For && time.Since(began) < a.For; j++ {
				if err := until(fctx, began.Add(a.due(j))); err != nil {
					return err
				}
				err := instances[i].leg.Send(to, 0, b, a.Bytes)
				switch {
				case err == nil:
					sent[i] += burst
				case !udpx.IsTransient(err):
					return err
				}
			}
			return nil
		})
	}
	err := all.Wait()
	var total int64
	for _, n := range sent {
		total += n
	}
	return total, err
}
