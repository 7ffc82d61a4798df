package fnlib

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/seal"
	"github.com/fnwire/fnwire/rendezvous"
)

// A small state need not wait for a link. It goes early: sealed, beside an envelope, by the rendezvous to who holds the name, whose word on
// it comes back the same way. If that does not come soon, the sender makes a link and sends the state there, as any other; a receiver that
// has it already knows it by its ID, and says its word on that stream. Whichever word is there first ends the Send.

// MaxEarly is the most bytes that a state may have to go early (see Config.EarlyBytes).
const MaxEarly = 32 << 10

const (
	earlyPurpose   = "early state"
	saidPurpose    = "word on an early state"
	earlyMost      = 4                      // that go to a name, then a link is made: it costs as much CPU as some of them
	earlyAgain     = time.Minute            // without one, and they go again
	earlyWithin    = 250 * time.Millisecond // for delivery and word, or a link is made
	wordWithin     = 25 * time.Millisecond  // for the word, and three times as long as the delivery took
	wordPause      = 50 * time.Millisecond  // before a word that did not get there is said again, then twice as long each time
	earlyLife      = 5 * time.Second        // in which one is taken, give or take the clocks, and waits for its sender to come by a link
	maxEarly       = 256                    // that wait for the application; others come by links
	maxClaims      = 4096                   // names to which some went
	pathRendezvous = "rendezvous"
)

var errNoWord = errors.New("the receiver may have it by the rendezvous, and has not said its word")

// said is the word on an early state, which its sender waits for as long as it sends.
type said struct {
	from  string        // the receiver's name
	heard chan struct{} // closed when reply is set
	reply reply
}

func (s *said) come() bool {
	select {
	case <-s.heard:
		return true
	default:
		return false
	}
}

// mayGoEarly reports whether the state is one that goes early, and does so now.
func (o *outgoing) mayGoEarly() bool {
	size := min(o.n.cfg.EarlyBytes, MaxEarly)
	if size <= 0 || o.header.size > uint64(size) || o.src.want != nil || o.opt.Path == DirectOnly || !o.went.IsZero() {
		return false
	}
	return o.n.checkTo(o.to) == nil && o.n.claimEarly(o.to, o.opt.Path)
}

// goEarly has the rendezvous deliver the state, and waits for the receiver's word for a while.
func (o *outgoing) goEarly(ctx context.Context) error {
	if err := o.readWhole(); err != nil {
		return err
	}
	env, err := o.sealEarly()
	if err != nil {
		o.n.log.Debug("fnlib: a state does not go early", "to", o.to, "error", err)
		return nil
	}
	o.said = o.n.awaitWord(o.header.id, o.to)
	o.went = time.Now()
	o.wire += int64(len(env.Early))
	posted := make(chan error, 1)
	if !o.n.work(func() { posted <- o.n.post(ctx, o.to, env) }) {
		return nil // which links will tell
	}
	patience := time.NewTimer(earlyWithin)
	defer patience.Stop()
	o.unsaid = errNoWord
	for {
		select {
		case <-o.said.heard:
			return nil
		case err := <-posted:
			if err != nil {
				o.n.log.Debug("fnlib: a state does not go early", "to", o.to, "error", err)
				o.unsaid = nil
				return nil
			}
			o.delivered = time.Now()
			o.early.Store(true)
			took := o.delivered.Sub(o.went)
			patience.Reset(min(earlyWithin-took, wordWithin+3*took))
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return nil
		case <-o.n.ctx.Done():
			return nil
		}
	}
}

// untilSaid is a context that ends when the receiver has said its word, but for a stream that it may say it on too.
func (o *outgoing) untilSaid(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-o.said.heard:
		case <-ctx.Done():
			return
		}
		if o.linked.Load() {
			select {
			case <-time.After(confirmWithin):
			case <-ctx.Done():
			}
		}
		cancel()
	}()
	return ctx, cancel
}

// readWhole reads the state to its end, all of which the window can hold.
func (o *outgoing) readWhole() error {
	for !o.ended {
		if err := o.readHashed(stops{}); err != nil {
			return err
		}
	}
	return nil
}

// post has the rendezvous deliver an envelope to who holds the name now.
func (n *Node) post(ctx context.Context, to string, env rendezvous.Envelope) error {
	ctx, cancel := context.WithTimeout(ctx, earlyLife)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	res, err := n.client.Offer(ctx, to, env)
	if err == nil && !res.Delivered {
		err = fmt.Errorf("%q has not joined, or is silent", to)
	}
	return err
}

// sealEarly makes an envelope, and beside it what a SEND stream carries.
func (o *outgoing) sealEarly() (rendezvous.Envelope, error) {
	env, err := o.n.hello(rendezvous.Hello{Kind: rendezvous.KindEarly, ToName: o.to, Class: uint8(RelayOnly)})
	if err != nil {
		return env, err
	}
	plain := appendSendHeader(nil, o.header)
	if err := o.window.from(0, func(raw []byte) error { plain = append(plain, appendChunk(raw)...); return nil }); err != nil {
		return env, err
	}
	plain = appendTrailer(plain, uint64(o.window.end), o.digest)
	env.Early, err = seal.Bytes(o.n.key.Derive(earlyPurpose), hex.EncodeToString(env.MAC), plain)
	return env, err
}

// claims are the early states that went to a name.
type claims struct {
	last time.Time
	n    int
}

// claimEarly reports whether a state may go early to a name: not where there is a link, or soon will be one, and earlyMost times until none went for earlyAgain,
// since who has more to say to somebody is better off with a link. To have paid about as much as the link costs before it is made is at most twice as much
// as would have been best (Karlin and others, Competitive snoopy caching, 1988).
func (n *Node) claimEarly(name string, path Path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, m := n.memberLocked(name); m != nil && time.Since(m.called[path]) < comingFor {
		return false
	}
	if n.calls[callKey{name, path}] != nil || n.upLocked(name, path) != nil {
		return false
	}
	c := n.claims[name]
	if time.Since(c.last) >= earlyAgain {
		c.n = 0
	}
	if c.n == earlyMost {
		return false
	}
	if c.n == 0 && len(n.claims) >= maxClaims {
		clear(n.claims)
	}
	n.claims[name] = claims{time.Now(), c.n + 1}
	return true
}

func (n *Node) awaitWord(id stateID, from string) *said {
	s := &said{from: from, heard: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.awaited[id] = s
	return s
}

func (n *Node) forgetWord(id stateID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.awaited, id)
}

// takeEarly queues an early state for the application.
func (n *Node) takeEarly(id peer.ID, h rendezvous.Hello, e rendezvous.Envelope) error {
	plain, err := seal.Open(n.key.Derive(earlyPurpose), hex.EncodeToString(e.MAC), e.Early)
	if err != nil {
		return fmt.Errorf("early state: %w", err)
	}
	r := bytes.NewReader(plain)
	head, err := readEarlyHead(r)
	if err != nil {
		return err
	}
	if age := time.Since(h.Time); age.Abs() > earlyLife {
		return fmt.Errorf("early state of %v ago, or clocks differ", age)
	}
	if n.inbound.earlyWaiting() >= maxEarly {
		n.log.Info("fnlib: an early state is left to a link, since too many wait", "from", h.FromName)
		return nil
	}
	in := newIncoming(n, h.FromName, head)
	in.early = id.String()
	in.state.goOn(r)
	in.expiry = time.AfterFunc(earlyLife, func() { n.inbound.drop(in, nil) })
	if live, verdict := n.inbound.add(in, 2*earlyLife); live != nil || verdict != nil { // it has come before
		in.expiry.Stop()
	}
	return nil
}

// readEarlyHead reads what an early state begins with.
func readEarlyHead(r io.Reader) (h sendHeader, err error) {
	var kind [1]byte
	if _, err = io.ReadFull(r, kind[:]); err == nil {
		h, err = readSendHeader(r)
	}
	if err == nil && (kind[0] != streamSend || h.resume || h.size > MaxEarly) {
		err = errWire
	}
	if err != nil {
		return h, fmt.Errorf("early state: %w", err)
	}
	return h, nil
}

// sayWord says the last word on an early state by the rendezvous. Its sender may have made a link by now, or come to make one, and is told there
// as well.
func (n *Node) sayWord(in *Incoming, p reply) {
	flushed, lingered := n.busy.begin(), n.words.begin()
	begun := n.work(func() {
		defer flushed()
		defer lingered()
		ctx, cancel := context.WithTimeout(n.ctx, answerTimeout)
		defer cancel()
		for pause := wordPause; ; pause *= 2 {
			err := n.sayOnce(ctx, in, p)
			if err == nil || errors.Is(err, rendezvous.ErrGone) {
				return
			}
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				n.log.Debug("fnlib: word on an early state not taken", "to", in.From, "state", in.id, "error", err)
				return
			}
		}
	})
	if !begun {
		flushed()
		lingered()
	}
}

// work runs f in a goroutine that Close waits for; false if the node is closed.
func (n *Node) work(f func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead() != nil {
		return false
	}
	n.wg.Go(f)
	return true
}

func (n *Node) sayOnce(ctx context.Context, in *Incoming, p reply) error {
	word, err := seal.Bytes(n.key.Derive(saidPurpose), "", appendReply(in.id[:], p))
	if err != nil {
		return err
	}
	env, err := n.hello(rendezvous.Hello{Kind: rendezvous.KindSaid, ToName: in.From, ToPeer: in.early, Class: uint8(RelayOnly), Said: word})
	if err != nil {
		return err
	}
	return n.client.Answer(ctx, in.early, env)
}

// hearWord tells a sender that waits what was said of its early state. The envelope's MAC vouches for it; it is sealed to be kept secret.
func (n *Node) hearWord(h rendezvous.Hello) error {
	plain, err := seal.Open(n.key.Derive(saidPurpose), "", h.Said)
	if err != nil {
		return fmt.Errorf("word on an early state: %w", err)
	}
	id, p, err := readWord(bytes.NewReader(plain))
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.awaited[id]; s != nil && s.from == h.FromName && !s.come() {
		s.reply = p
		close(s.heard)
	}
	return nil
}

func readWord(r io.Reader) (id stateID, p reply, err error) {
	if _, err = io.ReadFull(r, id[:]); err == nil {
		p, err = readReply(r, func(int64) error { return errWire })
	}
	if err != nil {
		return id, p, fmt.Errorf("word on an early state: %w", err)
	}
	return id, p, nil
}
