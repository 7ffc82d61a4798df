package suite

import (
	"context"
	"errors"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/world"
)

// scene is what a fault happens to: a stream from a to b.
type scene struct {
	couple
	w    *world.World
	bulk bool
}

// fault is something that breaks. The stream must survive it.
type fault struct {
	name    string
	relayed bool          // no direct path: both NATs are symmetric
	relays  int           // 0 is 1
	option  lab.Kind      // of the NATs, as "+timeout=2m"
	lasts   time.Duration // until it is mended; < 0 is the setting "long"
	// do breaks it and returns how to mend it, or nil if the world stays as it is now.
	do func(context.Context, *scene) (mend func() error, err error)
}

func (f fault) direct() bool { return !f.relayed }

func (f fault) hosts() []lab.Host {
	kind := lab.PortRestricted
	if f.relayed {
		kind = lab.Symmetric
	}
	return []lab.Host{{Name: "a", NAT: kind + f.option}, {Name: "b", NAT: kind + f.option}}
}

func allFaults() []fault {
	const short, some = 3 * time.Second, 6 * time.Second
	return []fault{
		{name: "none", lasts: short, do: func(context.Context, *scene) (func() error, error) { return nil, nil }},
		{name: "silent", lasts: short, do: func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().Block("a", "b") }},
		{name: "one-way-there", lasts: short, do: func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().BlockOneWay("a", "b") }},
		{name: "one-way-back", lasts: short, do: func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().BlockOneWay("b", "a") }},
		{name: "alternating", do: alternating},
		{name: "loss-1", lasts: some, do: loss(1)},
		{name: "loss-5", lasts: some, do: loss(5)},
		{name: "loss-30", lasts: some, do: loss(30)},
		{name: "reordering", option: "+timeout=1m", lasts: some, do: reorder},
		{name: "reordering-relayed", relayed: true, option: "+timeout=1m", lasts: some, do: reorder},
		{name: "nat-reboot-sender", do: func(_ context.Context, s *scene) (func() error, error) { return nil, s.w.Lab().RebootNAT("a") }},
		{name: "nat-reboot-receiver", do: func(_ context.Context, s *scene) (func() error, error) { return nil, s.w.Lab().RebootNAT("b") }},
		{name: "nat-reboot-relayed", relayed: true, do: func(_ context.Context, s *scene) (func() error, error) {
			return nil, errors.Join(s.w.Lab().RebootNAT("a"), s.w.Lab().RebootNAT("b"))
		}},
		{name: "public-address-sender", do: publicAddress("a")},
		{name: "public-address-receiver", do: publicAddress("b")},
		{name: "interface-sender", do: newAddress("a")},
		{name: "interface-receiver", do: newAddress("b")},
		{name: "mtu-path", lasts: short, do: func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().Narrow("a", "b", 1280) }},
		{name: "mtu-line", lasts: some, do: narrowLine},
		{name: "mtu-line-relayed", relayed: true, lasts: some, do: narrowLine},
		{name: "gso", lasts: some, do: func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().LoseBatches("a") }},
		{name: "relay-killed", relayed: true, relays: 2, lasts: short, do: func(_ context.Context, s *scene) (func() error, error) {
			p, err := s.carrying()
			if err == nil {
				p.Kill()
			}
			return nil, err
		}},
		{name: "relay-drained", relayed: true, relays: 2, lasts: short, do: func(_ context.Context, s *scene) (func() error, error) {
			p, err := s.carrying()
			if err != nil {
				return nil, err
			}
			return nil, p.Terminate()
		}},
		{name: "relay-restarted", relayed: true, lasts: time.Second, do: func(ctx context.Context, s *scene) (func() error, error) {
			s.w.Relay().Kill()
			return func() error { return s.w.StartRelay(ctx, 0) }, nil
		}},
		{name: "udp-blocked", relayed: true, do: func(_ context.Context, s *scene) (func() error, error) {
			_, err := s.w.Lab().BlockUDP("a", world.Public)
			return nil, err
		}},
		{name: "rendezvous-away", lasts: -1, do: func(ctx context.Context, s *scene) (func() error, error) {
			s.w.Rendezvous().Kill()
			return func() error { return s.w.StartRendezvous(ctx) }, nil
		}},
		{name: "frozen-receiver", lasts: -1, do: frozen(func(s *scene) *world.Proc { return s.b })},
		{name: "frozen-sender", lasts: -1, do: frozen(func(s *scene) *world.Proc { return s.a })},
		{name: "frozen-relayed", relayed: true, lasts: -1, do: frozen(func(s *scene) *world.Proc { return s.b })},
	}
}

func loss(percent int) func(context.Context, *scene) (func() error, error) {
	return func(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().Lose("a", "b", percent) }
}

// reorder holds back 5 % of the sender's packets, and of those to it.
func reorder(_ context.Context, s *scene) (func() error, error) { return s.w.Lab().Reorder("a", 5, 1) }

func publicAddress(host string) func(context.Context, *scene) (func() error, error) {
	return func(_ context.Context, s *scene) (func() error, error) {
		_, err := s.w.Lab().ChangePublicAddr(host)
		return nil, err
	}
}

func newAddress(host string) func(context.Context, *scene) (func() error, error) {
	return func(_ context.Context, s *scene) (func() error, error) {
		_, err := s.w.Lab().ChangeAddr(host)
		return nil, err
	}
}

// narrowLine leaves it narrow: there is no way around it.
func narrowLine(_ context.Context, s *scene) (func() error, error) {
	_, err := s.w.Lab().NarrowLine("a", 1280)
	return nil, err
}

func frozen(who func(*scene) *world.Proc) func(context.Context, *scene) (func() error, error) {
	return func(_ context.Context, s *scene) (func() error, error) { return who(s).Thaw, who(s).Freeze() }
}

// alternating takes the direct path away and gives it back eight times, so quickly that following each change is not worth while.
func alternating(ctx context.Context, s *scene) (func() error, error) {
	for range 8 {
		mend, err := s.w.Lab().Block("a", "b")
		if err == nil {
			err = errors.Join(pause(ctx, 1500*time.Millisecond), mend(), pause(ctx, 1500*time.Millisecond))
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// carrying returns the relay that the sender's link goes through.
func (s *scene) carrying() (*world.Proc, error) {
	p, err := s.a.Poured(context.Background())
	if err != nil {
		return nil, err
	}
	for i := range 2 {
		if world.RelayID(i) == p.Path.Remote {
			return s.w.RelayAt(i), nil
		}
	}
	return nil, errors.New("the link goes through no relay, but " + p.Path.Path + " " + p.Path.Remote)
}
