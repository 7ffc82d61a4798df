package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/relay"
	"github.com/fnwire/fnwire/rendezvous"
)

const (
	// A relay forgets who is silent for a minute.
	lifetimeStep = 5 * time.Second
	lifetimeMax  = 55 * time.Second

	lifetimeGrace = 15 * time.Second // for joins before, and answers after
	wakeTries     = 3                // packets, for one may be lost
	wakeEvery     = 200 * time.Millisecond
	wakeWait      = 2 * time.Second // for them to arrive
)

// lifetimeReport is how long a mapping lives that nothing is sent through. Times are in seconds.
type lifetimeReport struct {
	Alive float64 `json:"alive_s"`          // was alive after that long
	Dead  float64 `json:"dead_s,omitempty"` // was gone after that long; 0: the longest that was tried left it alive
}

// errNoLifetime tells that not even the shortest silence could be told from a broken relay.
var errNoLifetime = errors.New("mapping life-time: nothing came back by the relay, even at once")

// lifetime makes sockets bind to a relay and fall silent, each for another time, and then has the relay
// forward something to each: where it arrives the mapping was alive. The longest silence is longest.
func lifetime(ctx context.Context, cfg fnlib.Config, relayID string, longest time.Duration, notes io.Writer) (lifetimeReport, error) {
	var r lifetimeReport
	caller, err := newSleeper(ctx, cfg, relayID)
	if err != nil {
		return r, fmt.Errorf("mapping life-time: %w", err)
	}
	defer caller.close()
	var mu sync.Mutex // guards alive
	alive := make(map[time.Duration]bool)
	var group errgroup.Group
	for silence := time.Duration(0); silence <= longest; silence += lifetimeStep {
		group.Go(func() error {
			s, err := newSleeper(ctx, cfg, relayID)
			if err != nil {
				return fmt.Errorf("mapping life-time: %w", err)
			}
			defer s.close()
			s.muted.Store(true)
			if err := pause(ctx, silence); err != nil {
				return err
			}
			awake, err := caller.wake(ctx, s)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			alive[silence] = awake
			state := "alive"
			if !awake {
				state = "gone"
			}
			if silence > 0 {
				_, _ = fmt.Fprintf(notes, "fnwire: mapping %s after %v without traffic\n", state, silence) // nowhere else to say it
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return r, err
	}
	if !alive[0] {
		return r, errNoLifetime
	}
	for _, silence := range sortedKeys(alive) {
		if !alive[silence] {
			r.Dead = seconds(silence)
			break
		}
		r.Alive = seconds(silence)
	}
	return r, nil
}

func sortedKeys(m map[time.Duration]bool) []time.Duration {
	keys := make([]time.Duration, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// sleeper is a socket with a session at a relay, under an identity and a name of its own.
type sleeper struct {
	short  ident.Short
	client *rendezvous.Client
	leg    *relay.Client
	socket *net.UDPConn
	muted  atomic.Bool // what the leg sends is dropped
	heard  chan struct{}

	stop context.CancelFunc
	wg   sync.WaitGroup
}

func newSleeper(ctx context.Context, cfg fnlib.Config, relayID string) (*sleeper, error) {
	key, err := job.ParseKey(cfg.JobKey)
	if err != nil {
		return nil, err
	}
	id, err := ident.New()
	if err != nil {
		return nil, err
	}
	pub, err := ident.PublicKey(id.Peer)
	if err != nil {
		return nil, err
	}
	s := &sleeper{short: ident.ShortOf(key.ID(), pub), heard: make(chan struct{}, 1)}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.client, err = rendezvous.Dial(ctx, rendezvous.Config{
		URL: cfg.URL, Creds: cfg.Creds, Key: key, Name: randomName(), Exclusive: true, Identity: id, Logger: cfg.Logger,
	})
	if err == nil {
		err = s.bind(ctx, run, key, id, relayID)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// bind returns when the relay forwards to the socket.
func (s *sleeper) bind(ctx, run context.Context, key job.Key, id ident.Identity, relayID string) error {
	joined, err := s.client.Join(ctx)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(joined.Relays, func(r rendezvous.RelayInfo) bool { return r.ID == relayID })
	if at < 0 {
		return fmt.Errorf("relay %s is gone", relayID)
	}
	info := joined.Relays[at]
	if s.socket, err = net.ListenUDP("udp", nil); err != nil {
		return err
	}
	s.leg = relay.NewClient(relay.Config{
		ID: info.ID, Addr: info.Addr, Token: info.Token, Identity: id, Job: key.ID(), Send: s.send,
	})
	s.wg.Go(func() { _ = s.leg.Run(run) })
	s.wg.Go(s.read)
	for {
		if state, err := s.leg.State(); state == relay.StateBound {
			return nil
		} else if state == relay.StateRefused {
			return err
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func (s *sleeper) send(to netip.AddrPort, b []byte, seg int) error {
	if s.muted.Load() {
		return nil
	}
	for len(b) > 0 {
		n := min(seg, len(b))
		if _, err := s.socket.WriteToUDPAddrPort(b[:n], to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (s *sleeper) read() {
	buf := make([]byte, 2048)
	for {
		n, from, err := s.socket.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != s.leg.Addr() {
			continue
		}
		if _, _, _, ok := s.leg.HandlePacket(buf[:n]); ok {
			select {
			case s.heard <- struct{}{}:
			default:
			}
		}
	}
}

// wake sends to another sleeper by the relay, and tells whether that arrives.
func (s *sleeper) wake(ctx context.Context, other *sleeper) (bool, error) {
	packet := []byte("awake?")
	for range wakeTries {
		if err := s.leg.Send(other.short, 0, packet, len(packet)); err != nil {
			return false, err
		}
		if err := pause(ctx, wakeEvery); err != nil {
			return false, err
		}
	}
	timer := time.NewTimer(wakeWait)
	defer timer.Stop()
	select {
	case <-other.heard:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (s *sleeper) close() {
	s.stop()
	if s.client != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.client.Leave(ctx) // the lease ends anyway
		_ = s.client.Close()
	}
	if s.socket != nil {
		_ = s.socket.Close()
	}
	s.wg.Wait()
}
