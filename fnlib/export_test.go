package fnlib

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/seal"
	"github.com/fnwire/fnwire/internal/udpx"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/transport/punch"
)

// JoinOver is Join as a given instance, over networks in memory.
func JoinOver(ctx context.Context, cfg Config, id ident.Identity, s udpx.Socket, nats rendezvous.InProcess) (*Node, error) {
	return join(ctx, cfg, wires{id, []udpx.Socket{s}, nats})
}

// FillMembers makes n know as many instances as it may, none of them linked.
func FillMembers(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := 0; len(n.members) < maxMembers; i++ {
		n.members[peer.ID(fmt.Sprint(i))] = &member{name: fmt.Sprint("gone-", i)}
	}
}

// NonceOf returns what the node's offers and answers carry.
func NonceOf(n *Node) rendezvous.Nonce { return rendezvous.Nonce(n.ep.Nonce()) }

// OutlooksOf returns what the node goes by with hard NATs.
func OutlooksOf(n *Node) punch.Outlooks {
	_, all := n.ep.Outlooks()
	return all
}

// CallsOf returns how many searches for a link are under way.
func CallsOf(n *Node) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.calls)
}

// BreakLinks ends all of n's links as a network would that both ends gave up, and returns how many there were.
func BreakLinks(n *Node) (broken int) {
	n.mu.Lock()
	links := slices.Collect(maps.Keys(n.traffic))
	n.mu.Unlock()
	for _, l := range links {
		if l.Err() == nil {
			l.Break()
			broken++
		}
	}
	return broken
}

// PendingOf returns how many states wait for n's application.
func PendingOf(n *Node) int {
	n.inbound.mu.Lock()
	defer n.inbound.mu.Unlock()
	return len(n.inbound.queue)
}

// CheckSettledOnce holds what inbound promises, also beyond what it remembers.
func CheckSettledOnce(t *testing.T) {
	var b inbound
	b.init()
	state := func(i int) *Incoming { return newIncoming(nil, "a", sendHeader{id: stateID{byte(i), byte(i >> 8)}}) }
	for i := range maxSettled + 10 {
		in := state(i)
		if live, verdict := b.add(in, 0); live != nil || verdict != nil {
			t.Fatalf("%d: known before", i)
		}
		if took, _ := b.take(nil); took != in {
			t.Fatalf("%d: not queued", i)
		}
		if live, _ := b.add(state(i), time.Hour); live != in {
			t.Fatalf("%d: not known", i)
		}
		b.settle(in, reply{status: statusAccepted, bytes: uint64(i)})
		if b.settle(state(i), reply{status: statusRejected}) == nil {
			t.Fatalf("%d: settled twice", i)
		}
		if _, verdict := b.add(state(i), time.Hour); verdict == nil || verdict.bytes != uint64(i) {
			t.Fatalf("%d: verdict %+v", i, verdict)
		}
	}
	if _, verdict := b.add(state(0), time.Hour); verdict == nil || verdict.status != statusUnknown {
		t.Errorf("a state that was forgotten and resumes: %+v", verdict)
	}
	if _, verdict := b.add(state(maxSettled+10), time.Nanosecond); verdict != nil {
		t.Errorf("a state that began after all that were forgotten: %+v", verdict)
	}
	if n := len(b.settled); n != maxSettled || len(b.order) != n || len(b.times) != n {
		t.Errorf("%d verdicts, %d in order, %d times", n, len(b.order), len(b.times))
	}
}

// StoreAndResume stores a state, then resumes it over a link as if it had been under way there, and returns what comes of that.
func StoreAndResume(ctx context.Context, n *Node, to string, found func()) error {
	o := newOutgoing(n, to, "k", strings.NewReader("state"), SendOptions{StoreOnly: true})
	defer o.close()
	if err := o.deliverOrStore(ctx, new(Receipt)); err != nil {
		return err
	}
	found()
	o.header.resume, o.header.age = true, time.Second
	s, _, err := n.openStream(ctx, to, Auto, func() []byte { return appendSendHeader(nil, o.header) })
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = readReply(s, func(int64) error { return nil })
	return err
}

// SendAndStore sends a state, which must be refused, and stores it then, as a sender does that has not heard of it. It returns what both come to.
func SendAndStore(ctx context.Context, n *Node, to, key string) (sent, stored error) {
	o := newOutgoing(n, to, key, strings.NewReader(key), SendOptions{})
	defer o.close()
	sent = o.deliver(ctx)
	o.opt.StoreOnly = true
	return sent, o.deliverOrStore(ctx, new(Receipt))
}

// LookOf has n look into its store.
func LookOf(n *Node) error { return n.lookInto() }

// PutMemoryOf returns how many bytes of the states of Put are in n's memory.
func PutMemoryOf(n *Node) int64 {
	n.kept.mu.Lock()
	defer n.kept.mu.Unlock()
	return n.kept.used
}

// CheckCountedOnce holds that a Get counts once however often it says that it is done, also after the state is gone.
func CheckCountedOnce(t *testing.T) {
	n := &Node{ctx: t.Context()}
	k := &n.kept
	k.init(n)
	defer k.close()
	h := &held{refInfo: refInfo{id: stateID{1}, expires: time.Now().Add(time.Hour)}, reads: 2, content: &content{k: k}}
	if err := k.add(h); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct{ by, want byte }{{1, gotHere}, {1, gotHere}, {2, gotHere}, {2, gotHere}, {1, gotHere}, {3, gotReadOut}} {
		if got := k.count(h.id, stateID{c.by}); got != c.want {
			t.Errorf("%d: status %d, want %d", i, got, c.want)
		}
	}
	if got := k.count(stateID{2}, stateID{1}); got != gotUnknown {
		t.Errorf("a state that is not kept: status %d", got)
	}
}

// CorruptPulled changes a byte of a block that a Get of n under way has got.
func CorruptPulled(n *Node, ref Ref, block int) {
	i, err := openRef(n.key, ref)
	if err != nil {
		panic(err)
	}
	p := n.kept.underWay(i.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slots[block].block.data[0] ^= 1
}

// CorruptHeld has n keep another byte of a state, which must be in memory; at -1 another digest.
func CorruptHeld(n *Node, ref Ref, at int) {
	h, err := n.holding(ref)
	if err != nil {
		panic(err)
	}
	if at < 0 {
		h.digests[0][0] ^= 1
		return
	}
	h.content.blocks[at/blockSize][at%blockSize] ^= 1
}

// LinksOf returns how many links the node has.
func LinksOf(n *Node) (up int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.traffic {
		if l.Err() == nil {
			up++
		}
	}
	return up
}

// ForgetClaims has the next state to each name go early again.
func ForgetClaims(n *Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.claims)
}

// EarlyEnvelope makes what a node would have the rendezvous deliver.
func EarlyEnvelope(n *Node, to, state string) (rendezvous.Envelope, error) {
	return withEarly(n, to, state, func(o *outgoing) (rendezvous.Envelope, error) { return o.sealEarly() })
}

// CutEarlyEnvelope makes one whose state lacks bytes.
func CutEarlyEnvelope(n *Node, to, state string) (rendezvous.Envelope, error) {
	return withEarly(n, to, state, func(o *outgoing) (rendezvous.Envelope, error) {
		e, err := o.sealEarly()
		if err != nil {
			return e, err
		}
		e.Early, err = seal.Bytes(n.key.Derive(earlyPurpose), hex.EncodeToString(e.MAC), appendSendHeader(nil, o.header))
		return e, err
	})
}

func withEarly(n *Node, to, state string, do func(*outgoing) (rendezvous.Envelope, error)) (rendezvous.Envelope, error) {
	o := newOutgoing(n, to, "k", strings.NewReader(state), SendOptions{})
	defer o.close()
	if err := o.readWhole(); err != nil {
		return rendezvous.Envelope{}, err
	}
	return do(o)
}

// SendAgain sends by a link what an envelope of "state" has carried, as its sender does if no word comes.
func SendAgain(ctx context.Context, n *Node, to string, e rendezvous.Envelope) error {
	plain, err := seal.Open(n.key.Derive(earlyPurpose), hex.EncodeToString(e.MAC), e.Early)
	if err != nil {
		return err
	}
	head, err := readEarlyHead(bytes.NewReader(plain))
	if err != nil {
		return err
	}
	o := newOutgoing(n, to, head.key, strings.NewReader("state"), SendOptions{})
	defer o.close()
	o.header.id, o.went, o.unsaid = head.id, time.Now().Add(-time.Second), errNoWord
	if err := o.readWhole(); err != nil {
		return err
	}
	return o.deliverByLinks(ctx)
}

// ForgetSettled has a node forget all verdicts but newer ones.
func ForgetSettled(n *Node) {
	for i := range maxSettled + 1 {
		n.inbound.settle(newIncoming(n, "other", sendHeader{id: stateID{byte(i), byte(i >> 8), 1}}), reply{status: statusAccepted})
	}
}

// Again tells whether a state has been found in the store as well.
func (in *Incoming) Again() bool {
	in.n.inbound.mu.Lock()
	defer in.n.inbound.mu.Unlock()
	return in.again
}

// TakeEnvelope has a node take an envelope that the rendezvous has delivered.
func TakeEnvelope(n *Node, e rendezvous.Envelope) error { return n.handleHello(e) }
