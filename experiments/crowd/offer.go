package crowd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/fnwire/fnwire/rendezvous"
)

const (
	flightBytes    = 1200    // of the QUIC packet that an offer of a function's carries
	parkedAtOne    = 8       // offers that wait for one name, of rendezvous.MaxParked
	mostOffers     = 1 << 20 // of one call
	offersInFlight = 1024
)

// OfferArgs say what is offered.
type OfferArgs struct {
	Rate   int           `json:"rate"` // offers a second
	For    time.Duration `json:"for"`
	Parked int           `json:"parked"` // percent that go to names that nobody holds
	All    int           `json:"all"`    // instances of the job: the others go to one of them, at random
	Seed   uint64        `json:"seed"`
}

// Offered is what came of it. The times are from when an offer was due, so that one that could not be made in time counts as late, to the answer of the
// rendezvous: which is that the addressee has acknowledged it, or that it waits for one.
type Offered struct {
	Delivered []Made        `json:"delivered"`
	Parked    []Made        `json:"parked"`
	Late      []Made        `json:"late"`   // that a holder did not acknowledge in time: it has them with its next renewal
	Failed    int           `json:"failed"` // and those to nobody that were delivered
	Error     string        `json:"error"`  // of the first that failed
	Bytes     int64         `json:"bytes"`  // of the envelopes' bodies
	Took      time.Duration `json:"took"`
}

// Made is an offer that was answered.
type Made struct {
	Due  time.Time     `json:"due"`
	Took time.Duration `json:"took"`
}

// Check tells what is wrong with them.
func (a OfferArgs) Check() error {
	switch {
	case a.Rate < 1 || a.For <= 0 || a.count() < 1 || a.count() > mostOffers:
		return fmt.Errorf("crowd: %d offers a second for %v: want 1 to %d in all", a.Rate, a.For, mostOffers)
	case a.Parked < 0 || a.Parked > 100:
		return fmt.Errorf("crowd: %d %% parked", a.Parked)
	case a.All < 2:
		return errors.New("crowd: nobody to offer to")
	}
	return nil
}

func (a OfferArgs) count() int { return int(float64(a.Rate) * a.For.Seconds()) }

// due is when the i-th offer is, from the first.
func (a OfferArgs) due(i int) time.Duration {
	return time.Duration(i) * time.Second / time.Duration(a.Rate)
}

// parks tells whether the i-th offer goes to nobody: these are spread evenly.
func (a OfferArgs) parks(i int) bool { return i*a.Parked/100 != (i+1)*a.Parked/100 }

// to is the name that the i-th offer goes to, of an instance called from.
func (a OfferArgs) to(i int, from string, random *rand.Rand) string {
	if a.parks(i) {
		return fmt.Sprintf("nobody-%d-%d", a.Seed, i*a.Parked/100/parkedAtOne)
	}
	for {
		if to := name(random.IntN(a.All)); to != from {
			return to
		}
	}
}

// Offer makes offers at a steady rate, each by one of the crowd's instances at random.
func (c *Crowd) Offer(ctx context.Context, a OfferArgs) (Offered, error) {
	if err := a.Check(); err != nil {
		return Offered{}, err
	}
	c.mu.Lock()
	instances := c.instances
	c.mu.Unlock()
	if len(instances) == 0 {
		return Offered{}, errors.New("crowd: nobody has joined")
	}
	var out Offered
	var mu sync.Mutex // guards out
	var wg sync.WaitGroup
	random := rand.New(rand.NewPCG(a.Seed, 0))
	slots := make(chan struct{}, offersInFlight)
	idle := make(chan func()) // to a goroutine that has made its offer: the stack of a new one has to grow
	began := time.Now()
	for i := range a.count() {
		due := began.Add(a.due(i))
		if err := until(ctx, due); err != nil {
			break
		}
		slots <- struct{}{}
		in := instances[random.IntN(len(instances))]
		to := a.to(i, in.name, random)
		offer := func() {
			defer func() { <-slots }()
			bytes, delivered, err := c.offer(ctx, in, to)
			m := Made{due, time.Since(due)}
			mu.Lock()
			defer mu.Unlock()
			out.note(bytes, m, a.parks(i), delivered, err)
		}
		select {
		case idle <- offer:
		default:
			wg.Go(func() {
				for ; offer != nil; offer = <-idle {
					offer()
				}
			})
		}
	}
	close(idle)
	wg.Wait()
	out.Took = time.Since(began)
	return out, ctx.Err()
}

func (o *Offered) note(bytes int, m Made, parked, delivered bool, err error) {
	o.Bytes += int64(bytes)
	if err == nil && parked && delivered {
		err = errors.New("an offer to nobody was delivered")
	}
	switch {
	case err != nil:
		if o.Failed++; o.Failed == 1 {
			o.Error = err.Error()
		}
	case parked:
		o.Parked = append(o.Parked, m)
	case !delivered:
		o.Late = append(o.Late, m)
	default:
		o.Delivered = append(o.Delivered, m)
	}
}

// until waits for a time.
func until(ctx context.Context, t time.Time) error {
	select {
	case <-time.After(time.Until(t)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// offer makes one like those of fnlib, and returns the bytes of its body.
func (c *Crowd) offer(ctx context.Context, in *instance, to string) (bytes int, delivered bool, err error) {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), 40000)
	e, err := rendezvous.Seal(c.key, rendezvous.Hello{
		Job: in.Job(), Kind: rendezvous.KindOffer, FromName: in.name, FromPeer: in.id.Peer.String(), FromEpoch: in.Epoch(), ToName: to, Seq: in.seq.Add(1),
		Nonce: in.nonce, Candidates: []rendezvous.Candidate{{Addr: addr, Kind: "host"}, {Addr: addr, Kind: "srflx"}},
		Relay: "relay-1", RelayAddr: addr, Flight: [][]byte{make([]byte, flightBytes)},
	})
	if err != nil {
		return 0, false, err
	}
	r, err := in.Offer(ctx, to, e)
	return len(e.Body), r.Delivered, err
}
