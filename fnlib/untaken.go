package fnlib

// QUIC counts what nobody reads against the window of the whole connection, so states that wait for their
// turn at the receiver would stop the one that it reads. Therefore a sender has only so much under way on a
// link in states that the receiver's application has not taken yet; the others wait with their headers sent.
const (
	maxUntaken  = 8 << 20   // bytes of a link, of transport's window of 24 MiB
	fullStream  = 512 << 10 // the most that an unread stream can hold (transport's window for it)
	freeUntaken = 2 << 10   // a state of this size does not wait: 4,096 of them fit beside the rest
)

// untakenCost is what a state of that size takes of maxUntaken. Zero: it need not ask.
func untakenCost(size uint64) int {
	if size <= freeUntaken {
		return 0
	}
	return int(min(size, fullStream))
}

// reserve waits for room for a state, or for one of stop to be closed, and returns what gives the
// room back. It calls waits before it waits.
func (t *traffic) reserve(cost int, waits func() error, stop ...<-chan struct{}) (release func(), err error) {
	for {
		t.mu.Lock()
		room := t.untaken+cost <= maxUntaken
		if room {
			t.untaken += cost
		}
		changed := t.changed
		t.mu.Unlock()
		if room {
			return func() { t.update(func() { t.untaken -= cost }) }, nil
		}
		if err := waits(); err != nil {
			return nil, err
		}
		select {
		case <-changed:
			continue
		case <-stop[0]:
		case <-stop[1]:
		}
		return func() {}, nil
	}
}

// await waits until a state of that size may be sent. What it takes of the link is given back when the
// receiver has taken the state, or has said its last word on it. It calls waits before it waits: others must see the header by then.
func (w *word) await(t *traffic, size uint64, waits func() error) error {
	cost := untakenCost(size)
	if cost == 0 {
		return nil
	}
	release, err := t.reserve(cost, waits, w.taken, w.come)
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-w.taken:
		case <-w.come:
		}
		release()
	}()
	return nil
}
