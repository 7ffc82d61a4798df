package server

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/fnwire/fnwire/rendezvous"
)

// acks delivers envelopes and waits until the instances say that they have them. They say so at a
// subject of their own job: NATS' way, which is to let whoever got a message publish at its reply
// subject, would let a job send itself a message with anybody's subject for the reply.
type acks struct {
	nc *nats.Conn
	id string // tells this copy of the service from others

	mu      sync.Mutex // guards what follows
	last    uint64
	waiting map[string]chan bool // by subject; capacity 1
}

func newAcks(nc *nats.Conn) *acks {
	return &acks{nc: nc, id: rand.Text(), waiting: make(map[string]chan bool)}
}

// subject is what the service subscribes to.
func (a *acks) subject() string { return rendezvous.SubjectAck("*", a.id) + ".*" }

// heard takes an acknowledgement, or NATS' word that nobody is there.
func (a *acks) heard(m *nats.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.waiting[m.Subject]; ok {
		delete(a.waiting, m.Subject)
		c <- m.Header.Get("Status") != noResponders
	}
}

const noResponders = "503"

// deliver reports whether the instance has acknowledged before ctx ended.
func (a *acks) deliver(ctx context.Context, k key, peerID string, data []byte) bool {
	c := make(chan bool, 1)
	a.mu.Lock()
	a.last++
	reply := strings.Join([]string{rendezvous.SubjectAck(k.job.String(), a.id), strconv.FormatUint(a.last, 36)}, ".")
	a.waiting[reply] = c
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.waiting, reply)
		a.mu.Unlock()
	}()
	if err := a.nc.PublishRequest(rendezvous.SubjectInbox(k.job, peerID), reply, data); err != nil {
		return false
	}
	select {
	case ok := <-c:
		return ok
	case <-ctx.Done():
		return false
	}
}
