package fnlib

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	maxKept          = 4096            // states that a node keeps for Get
	maxReads         = 4096            // Gets that are counted for one state
	maxGetsOfPeer    = 16              // under way at once
	rememberReleased = time.Minute     // why a state is not there any more, and who has read it
	defaultPutTTL    = time.Hour       // of a state without PutOptions.TTL
	defaultPutMemory = int64(16) << 20 // bytes
)

// held is a state that a node keeps.
type held struct {
	refInfo
	digests []Digest
	reads   int  // how many Gets may end well; 0: any number
	spills  bool // the store gets it when the node closes
	content *content

	// What follows is guarded by keeper.mu.
	why      byte                 // gotHere, or why it was released
	done     map[stateID]struct{} // the Gets that have ended well, if they are counted
	stored   bool                 // the store has it as well
	getters  []*entry             // who gets it now, by their places
	places   uint32               // how many there were
	timer    *time.Timer
	released chan struct{}
}

// keeper keeps the states that others may get from this node.
type keeper struct {
	n       *Node
	mu      sync.Mutex // guards what follows
	states  map[stateID]*held
	pulls   map[stateID]*pull // Gets under way, of each state the first
	used    int64             // bytes in memory
	serving map[peer.ID]int
	closed  bool
}

func (k *keeper) init(n *Node) {
	k.n = n
	k.states, k.pulls, k.serving = make(map[stateID]*held), make(map[stateID]*pull), make(map[peer.ID]int)
}

// entry is the place of a function that gets a state from here.
type entry struct {
	name string
	of   *held // nil: it has none
}

// enter puts a function that begins to get a state at the end of its chain, and returns its place and the one before it, its lead; see lead.go. Place 0: it is not
// of the chain.
func (k *keeper) enter(e *entry, h *held, name string) (place uint32, lead string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.of != nil || h.size < leadLeast || h.reads > 0 || len(h.holders) > 0 && h.holders[0] != k.n.cfg.Name ||
		slices.ContainsFunc(h.getters, func(o *entry) bool { return o.name == name }) {
		return 0, "" // among others since a function that came twice could be its own lead
	}
	if n := len(h.getters); n > 0 {
		lead = h.getters[n-1].name
	}
	e.name, e.of = name, h
	h.getters = append(h.getters, e)
	h.places++
	return h.places, lead
}

// leave takes it out.
func (k *keeper) leave(e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.of != nil {
		e.of.getters = slices.DeleteFunc(e.of.getters, func(o *entry) bool { return o == e })
		e.of = nil
	}
}

// register has others get from a pull what it has got, unless there is one of the same state already.
func (k *keeper) register(p *pull) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pulls[p.ref.id] == nil {
		k.pulls[p.ref.id] = p
		p.registered = true
	}
}

func (k *keeper) unregister(p *pull) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.pulls[p.ref.id] == p {
		delete(k.pulls, p.ref.id)
	}
}

// underWay is the pull of a state; nil: there is none.
func (k *keeper) underWay(id stateID) *pull {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pulls[id]
}

// reserve takes room in memory.
func (k *keeper) reserve(size int64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.used+size > cmp.Or(k.n.cfg.PutMemory, defaultPutMemory) {
		return false
	}
	k.used += size
	return true
}

// release gives it back.
func (k *keeper) release(size int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.used -= size
}

// errHeld: the node keeps the state already.
var errHeld = errors.New("held already")

// add takes over a state, content included unless it fails.
func (k *keeper) add(h *held) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.n.ends() { // what is to be stored at the end is known
		return ErrClosed
	}
	if old := k.states[h.id]; old != nil && old.why == gotHere {
		return errHeld
	}
	if len(k.states) >= maxKept && !k.forgetReleased() {
		return fmt.Errorf("%d states are kept already: Drop some, or give them less time", maxKept)
	}
	h.done, h.released = make(map[stateID]struct{}), make(chan struct{})
	k.states[h.id] = h
	h.timer = time.AfterFunc(time.Until(h.expires), func() { k.end(h, gotExpired) })
	return nil
}

// forgetReleased makes room for another state. It runs under mu.
func (k *keeper) forgetReleased() bool {
	for id, h := range k.states {
		if h.why != gotHere {
			delete(k.states, id)
			return true
		}
	}
	return false
}

// end releases a state, and remembers why for a while.
func (k *keeper) end(h *held, why byte) {
	k.mu.Lock()
	ended := k.endLocked(h, why)
	k.mu.Unlock()
	if ended {
		h.content.close()
	}
}

// endLocked runs under mu. If it returns true, the content is to be closed after mu was let go.
func (k *keeper) endLocked(h *held, why byte) bool {
	if h.why != gotHere {
		return false
	}
	h.why = why
	close(h.released)
	h.timer.Stop()
	if h.stored && (why == gotReadOut || why == gotDropped) {
		k.n.wg.Go(func() { k.n.removeStored(h.id) })
	}
	gone := *h
	gone.content, gone.digests = nil, nil
	k.states[h.id] = &gone
	if !k.closed {
		gone.timer = time.AfterFunc(rememberReleased, func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.states[gone.id] == &gone {
				delete(k.states, gone.id)
			}
		})
	}
	return true
}

// look finds a state, or says what became of it.
func (k *keeper) look(id stateID) (*held, gotHeader) {
	k.mu.Lock()
	h := k.states[id]
	k.mu.Unlock()
	if h == nil {
		return nil, gotHeader{status: gotUnknown}
	}
	if !time.Now().Before(h.expires) { // timers stop while a process is frozen, the clock does not
		k.end(h, gotExpired)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return h, gotHeader{status: h.why, left: h.left(), size: uint64(h.size)}
}

// left is how many Gets may still end well. It runs under keeper.mu.
func (h *held) left() uint32 {
	if h.reads == 0 {
		return noLimit
	}
	return uint32(h.reads - len(h.done))
}

// count notes that a Get has read a state, once however often it says so.
func (k *keeper) count(id, by stateID) (status byte) {
	h, got := k.look(id)
	if h == nil {
		return got.status
	}
	k.mu.Lock()
	ended := false
	switch _, again := h.done[by]; {
	case again:
		status = gotHere
	case h.why != gotHere || h.reads == 0:
		status = h.why
	default:
		h.done[by] = struct{}{}
		if h.left() == 0 {
			ended = k.endLocked(h, gotReadOut)
		}
	}
	k.mu.Unlock()
	if ended {
		h.content.close()
	}
	return status
}

// drop releases a state that is wanted no more.
func (k *keeper) drop(id stateID) (status byte) {
	h, got := k.look(id)
	if got.status == gotHere {
		k.end(h, gotDropped)
	}
	return got.status
}

// admit notes that a GET of a peer is under way; nil: it has as many as it may.
func (k *keeper) admit(p peer.ID) (leave func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.serving[p] >= maxGetsOfPeer {
		return nil
	}
	k.serving[p]++
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.serving[p]--; k.serving[p] == 0 {
			delete(k.serving, p)
		}
	}
}

// close releases everything.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	var ended []*held
	for _, h := range k.states {
		h.timer.Stop()
		if k.endLocked(h, gotUnknown) {
			ended = append(ended, h)
		}
	}
	k.mu.Unlock()
	for _, h := range ended {
		h.content.close()
	}
}
