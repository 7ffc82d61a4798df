package fnlib

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
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
	earlyAgain     = time.Minute            // before another one goes to the same name, if there is no link by then
	earlyWithin    = 250 * time.Millisecond // for delivery and word, or a link is made
	wordWithin     = 25 * time.Millisecond  // for the word, and three times as long as the delivery took
	earlyLife      = 5 * time.Second        // in which one is taken, by the receiver's clock, and waits for its sender to come by a link
	maxEarly       = 256                    // that wait for the application; others come by links
	maxClaims      = 4096                   // names to which one went within earlyAgain
	pathRendezvous = "rendezvous"
)

var errNoWord = errors.New("the receiver has not said its word on what came by the rendezvous")

// mayGoEarly reports whether the state is one that goes early, which it does once.
func (o *outgoing) mayGoEarly() bool {
	size := min(o.n.cfg.EarlyBytes, MaxEarly)
	if size <= 0 || o.header.size > uint64(size) || o.src.want != nil || o.opt.Path == DirectOnly || !o.began.IsZero() {
		return false
	}
	return o.n.checkTo(o.to) == nil && o.n.claimEarly(o.to, o.opt.Path)
}

// deliverEarly hands the state over by the rendezvous, and begins with links if the receiver's word does not come soon.
func (o *outgoing) deliverEarly(ctx context.Context) error {
	if err := o.readWhole(); err != nil {
		return err
	}
	env, err := o.sealEarly()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	said := o.n.awaitWord(o.header.id, o.to, cancel)
	defer o.n.forgetWord(o.header.id)
	o.began = time.Now()
	o.wire += int64(len(env.Early))
	posted := make(chan error, 1)
	var posting sync.WaitGroup
	posting.Go(func() { posted <- o.post(ctx, env) })
	defer posting.Wait()
	defer cancel()
	last := o.awaitDelivery(ctx, posted)
	if ctx.Err() == nil || !said.come() {
		err = o.deliverByLinks(ctx, last)
	}
	if !said.come() {
		return err
	}
	if o.path = pathRendezvous; o.opt.Progress != nil {
		o.opt.Progress(o.window.end, o.path)
	}
	return o.check(said.reply)
}

// awaitDelivery returns when ctx has ended, as it does with the word, or no longer is waited for that. The error is for a link to begin with,
// if the state may have been delivered.
func (o *outgoing) awaitDelivery(ctx context.Context, posted <-chan error) error {
	patience := time.NewTimer(earlyWithin)
	defer patience.Stop()
	for {
		select {
		case err := <-posted:
			if err != nil {
				o.n.log.Debug("fnlib: a state does not go early", "to", o.to, "error", err)
				return nil
			}
			o.poured = time.Now()
			o.linked.Store(true)
			took := o.poured.Sub(o.began)
			patience.Reset(min(earlyWithin-took, wordWithin+3*took))
		case <-patience.C:
			return errNoWord
		case <-ctx.Done():
			return errNoWord
		case <-o.n.ctx.Done():
			return errNoWord
		}
	}
}

// readWhole reads the state to its end, all of which the window can hold.
func (o *outgoing) readWhole() error {
	for !o.ended {
		chunk, err := o.next(o.window.room(), stops{})
		if err != nil {
			return err
		}
		if chunk != nil {
			_, _ = o.hash.Write(chunk[frameHead:]) // never fails (hash.Hash)
		}
	}
	return nil
}

// post has the rendezvous deliver the state to who holds the name now.
func (o *outgoing) post(ctx context.Context, env rendezvous.Envelope) error {
	res, err := o.n.client.Offer(ctx, o.to, env)
	if err == nil && !res.Delivered {
		err = fmt.Errorf("%q has not joined, or is silent", o.to)
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
	env.Early, err = o.n.seal(earlyPurpose, hex.EncodeToString(env.MAC), plain)
	return env, err
}

// seal seals b under the job's key, for a purpose and under a name.
func (n *Node) seal(purpose, name string, b []byte) ([]byte, error) {
	var sealed bytes.Buffer
	w, err := seal.NewWriter(&sealed, n.key.Derive(purpose), name)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err = w.Close()
	return sealed.Bytes(), err
}

func (n *Node) unseal(purpose, name string, b []byte) (*bytes.Reader, error) {
	plain, err := io.ReadAll(seal.NewReader(bytes.NewReader(b), n.key.Derive(purpose), name))
	return bytes.NewReader(plain), err
}

// claimEarly reports whether a state may go early to a name: not where there is a link, or soon will be one, and once in earlyAgain, since who
// has more to say to somebody is better off with a link.
func (n *Node) claimEarly(name string, path Path) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, m := n.memberLocked(name); m != nil && time.Since(m.called[path]) < comingFor {
		return false
	}
	if n.calls[callKey{name, path}] != nil || n.upLocked(name, path) != nil || time.Since(n.claims[name]) < earlyAgain {
		return false
	}
	if len(n.claims) >= maxClaims {
		clear(n.claims)
	}
	n.claims[name] = time.Now()
	return true
}

// said is the word on an early state, which its sender waits for.
type said struct {
	n     *Node
	from  string // the receiver's name
	hear  func() // called with the word
	heard bool   // guarded by Node.mu, as reply until then
	reply reply
}

func (s *said) come() bool {
	s.n.mu.Lock()
	defer s.n.mu.Unlock()
	return s.heard
}

func (n *Node) awaitWord(id stateID, from string, hear func()) *said {
	s := &said{n: n, from: from, hear: hear}
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
	r, err := n.unseal(earlyPurpose, hex.EncodeToString(e.MAC), e.Early)
	if err != nil {
		return fmt.Errorf("early state: %w", err)
	}
	head, err := readEarlyHead(r)
	if err != nil {
		return err
	}
	age := time.Since(h.Time)
	if age > earlyLife {
		return fmt.Errorf("early state of %v ago, or clocks differ", age)
	}
	if n.inbound.earlyWaiting() >= maxEarly {
		n.log.Info("fnlib: an early state is left to a link, since too many wait", "from", h.FromName)
		return nil
	}
	in := newIncoming(n, h.FromName, head)
	in.early = id.String()
	in.state.goOn(r)
	if live, verdict := n.inbound.add(in, max(age, time.Millisecond)); live == nil && verdict == nil { // else it has come before
		time.AfterFunc(earlyLife, func() { n.inbound.drop(in, nil) })
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

// sayWord says the last word on an early state whose sender has made no link. If it does not get there, the sender makes one, and is told then.
func (n *Node) sayWord(in *Incoming, p reply) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dead() != nil {
		return
	}
	flushed, lingered := n.busy.begin(), n.words.begin()
	n.wg.Go(func() {
		defer flushed()
		defer lingered()
		ctx, cancel := context.WithTimeout(n.ctx, answerTimeout)
		defer cancel()
		h := rendezvous.Hello{Kind: rendezvous.KindSaid, ToName: in.From, ToPeer: in.early, Class: uint8(RelayOnly)}
		var err error
		if h.Said, err = n.seal(saidPurpose, "", appendReply(in.id[:], p)); err == nil {
			var env rendezvous.Envelope
			if env, err = n.hello(h); err == nil {
				err = n.client.Answer(ctx, in.early, env)
			}
		}
		if err != nil && n.ctx.Err() == nil {
			n.log.Debug("fnlib: word on an early state not taken", "to", in.From, "state", in.id, "error", err)
		}
	})
}

// hearWord tells a sender that waits what was said of its early state. The envelope's MAC vouches for it; it is sealed to be kept secret.
func (n *Node) hearWord(h rendezvous.Hello) error {
	r, err := n.unseal(saidPurpose, "", h.Said)
	if err != nil {
		return fmt.Errorf("word on an early state: %w", err)
	}
	id, p, err := readWord(r)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.awaited[id]; s != nil && s.from == h.FromName && !s.heard {
		s.reply, s.heard = p, true
		s.hear()
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
