package wukong3

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// maxEnds is how many ends may wait at a coordinator or be in their set-up.
const maxEnds = 1 << 14

var errFull = errors.New("the coordinator has no room: try later")

// end is one end of a pairing at the coordinator, from PAIR to DONE.
type end struct {
	pairMsg
	addr  netip.AddrPort
	reply func(matchMsg) // called once at most, under the matchmaker's lock

	other   *end // once it has come
	granted bool
	gone    bool
}

// matchmaker brings ends together. A node that is serial has one set-up at a time: the coordinator holds back a pair until both are
// free, in the order in which pairs were complete. Were it the nodes that decided, they could wait for one another in a ring.
type matchmaker struct {
	mu      sync.Mutex // guards what follows
	ends    int
	waiting map[string]*end // the first of each key, until there is a match
	ready   []*end          // the later one of each pair that is held back
	busy    map[id]*end     // serial nodes
}

func newMatchmaker() *matchmaker {
	return &matchmaker{waiting: make(map[string]*end), busy: make(map[id]*end)}
}

// come takes an end that asks for its other.
func (m *matchmaker) come(e *end) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ends == maxEnds {
		return errFull
	}
	first := m.waiting[e.key]
	switch {
	case first == nil:
		m.waiting[e.key] = e
	case first.other != nil:
		return fmt.Errorf("both ends of %q are there", e.key)
	case first.sends == e.sends:
		return fmt.Errorf("both ends of %q send, or both receive", e.key)
	default:
		first.other, e.other = e, first
		m.ready = append(m.ready, e)
	}
	m.ends++
	m.grant()
	return nil
}

// leave forgets an end. It may be called again.
func (m *matchmaker) leave(e *end) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.gone {
		return
	}
	e.gone = true
	m.ends--
	if m.waiting[e.key] == e {
		delete(m.waiting, e.key)
	}
	if m.busy[e.node] == e {
		delete(m.busy, e.node)
	}
	if o := e.other; o != nil && !e.granted {
		m.ready = slices.DeleteFunc(m.ready, func(r *end) bool { return r == e || r == o })
		o.other, m.waiting[o.key] = nil, o
	}
	m.grant()
}

// grant starts every pair whose nodes are free.
func (m *matchmaker) grant() {
	m.ready = slices.DeleteFunc(m.ready, func(e *end) bool {
		if m.held(e) || m.held(e.other) {
			return false
		}
		var pairing id
		_, _ = rand.Read(pairing[:]) // which ends the process rather than fail
		delete(m.waiting, e.key)
		for _, x := range []*end{e, e.other} {
			x.granted = true
			if x.serial {
				m.busy[x.node] = x
			}
			x.reply(matchMsg{x.number, pairing, x.other.addr, x.other.cert})
		}
		return true
	})
}

func (m *matchmaker) held(e *end) bool { return e.serial && m.busy[e.node] != nil }
