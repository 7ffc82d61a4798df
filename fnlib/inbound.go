package fnlib

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport"
)

// maxSettled is how many states a node remembers after it has said its last word on them. What resumes
// and began before the last one that was forgotten is refused, since it may have been accepted.
const maxSettled = 8192

// inboundKey tells states apart: senders choose the ID.
type inboundKey struct {
	from string
	id   stateID
}

// inbound is what a node knows of the states that come, whichever way: it is why none is accepted twice
// by one instance.
type inbound struct {
	mu        sync.Mutex    // guards what follows
	queue     []*Incoming   // those that come over links are bounded: QUIC allows a link 4,096 streams
	waiting   int           // states of the store in queue
	changed   chan struct{} // closed and replaced when queue has grown
	live      map[inboundKey]*Incoming
	objects   map[string]struct{} // of the store, that live states are read from, or were and are released
	settled   map[inboundKey]reply
	order     []inboundKey // of settled, oldest first
	forgotten time.Time    // when the newest state that is not remembered was settled
	times     map[inboundKey]time.Time
}

func (b *inbound) init() {
	b.changed = make(chan struct{})
	b.live = make(map[inboundKey]*Incoming)
	b.objects = make(map[string]struct{})
	b.settled = make(map[inboundKey]reply)
	b.times = make(map[inboundKey]time.Time)
}

// add queues a state for the application, unless it is known already: then live or the verdict says how it stands. One that resumes
// goes on by its new stream before anybody can settle it.
func (b *inbound) add(in *Incoming, age time.Duration) (live *Incoming, verdict *reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p, ok := b.settled[in.key()]; ok {
		return nil, &p
	}
	if live, ok := b.live[in.key()]; ok {
		if in.s != nil && live.stored == nil && (in.resumed || live.early != "") {
			live.move(in.s)
		}
		return live, nil
	}
	if age > 0 && time.Now().Add(-age).Before(b.forgotten) {
		return nil, &reply{status: statusUnknown, reason: fmt.Sprintf("the receiver remembers only the last %d states that it has accepted, and this may have been one before", maxSettled)}
	}
	b.live[in.key()] = in
	b.queue = append(b.queue, in)
	if in.stored != nil {
		b.objects[in.stored.key] = struct{}{}
		b.waiting++
	}
	in.watch(in.s)
	close(b.changed)
	b.changed = make(chan struct{})
	return nil, nil
}

func (b *inbound) took(in *Incoming) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return in.taken
}

// drop forgets a state that nobody has taken, whose stream has ended and no other has taken its place.
func (b *inbound) drop(in *Incoming, s *transport.Stream) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.queue, in)
	if i < 0 || in.stream() != s {
		return
	}
	b.queue = slices.Delete(b.queue, i, i+1)
	b.forgetLocked(in)
	if s != nil {
		_ = s.Close() // or QUIC counts it among those that are open
	}
}

// take removes the first state that all filters want, or returns what is closed when there may be one.
func (b *inbound) take(want []Filter) (*Incoming, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, in := range b.queue {
		if !slices.ContainsFunc(want, func(f Filter) bool { return !f(in.From, in.Key) }) {
			b.queue = slices.Delete(b.queue, i, i+1)
			if in.taken = true; in.stored != nil {
				b.waiting--
			}
			if in.expiry != nil {
				in.expiry.Stop()
			}
			return in, nil
		}
	}
	return nil, b.changed
}

// settle notes the last word on a state. It returns the word that was said before, if there was one.
func (b *inbound) settle(in *Incoming, p reply) (before *reply) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := in.key()
	if was, ok := b.settled[k]; ok {
		return &was
	}
	if b.live[k] == in {
		b.leave(in)
	}
	if in.again { // what is stored may be removed
		poke(in.n.look)
	}
	if p.released && in.stored != nil {
		b.objects[in.stored.key] = struct{}{} // or each look would open it
	}
	b.settled[k], b.times[k] = p, time.Now()
	if b.order = append(b.order, k); len(b.order) > maxSettled {
		old := b.order[0]
		b.forgotten = b.times[old]
		delete(b.settled, old)
		delete(b.times, old)
		b.order = b.order[1:]
	}
	return nil
}

// forget drops a state whose sender gave up. If it comes again, it comes from its beginning; and if it has come to the store
// meanwhile, that is looked into.
func (b *inbound) forget(in *Incoming) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forgetLocked(in)
}

func (b *inbound) forgetLocked(in *Incoming) {
	if b.live[in.key()] != in {
		return
	}
	b.leave(in)
	if in.again {
		poke(in.n.look)
	}
}

func (b *inbound) leave(in *Incoming) {
	delete(b.live, in.key())
	if in.stored != nil {
		delete(b.objects, in.stored.key)
	}
}

// comesAgain notes that a state which comes over a link is in the store as well.
func (b *inbound) comesAgain(in *Incoming) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if in.again = true; b.live[in.key()] != in { // it has ended since
		poke(in.n.look)
	}
}

// storedWaiting is how many states of the store wait for the application.
func (b *inbound) storedWaiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting
}

// earlyWaiting is how many early states wait for the application.
func (b *inbound) earlyWaiting() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, in := range b.queue {
		if in.early != "" {
			n++
		}
	}
	return n
}

// reads reports whether an object of the store waits for the application, is read by it, or was released.
func (b *inbound) reads(object string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.objects[object]
	return ok
}

// serveSend takes a state that begins, or goes on, on a stream.
func (n *Node) serveSend(s *transport.Stream) error {
	h, err := readSendHeader(s)
	if err != nil {
		return err
	}
	_ = s.SetReadDeadline(time.Time{})
	n.trafficOf(s.Link()).begin(false)() // counted as seen; a sender waits for the receipt by itself
	in := newIncoming(n, n.nameOf(s.Link().Peer()), h)
	in.s, in.resumed = s, h.resume
	live, verdict := n.inbound.add(in, h.age)
	switch {
	case verdict != nil:
		err = n.conclude(s, *verdict)
	case live != nil && live.stream() != s:
		s.Reset(resetMoved) // a header that its sender believes lost, or the state has come to the store as well; it resumes
	}
	return err
}
