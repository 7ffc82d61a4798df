package fnlib

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestFlushWaitsForFollower: what was asked for goes out before Flush returns, and the blocks are let go then.
func TestFlushWaitsForFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPull(t, 2, 1)
		n := p.n
		n.ctx = t.Context()
		n.kept.init(n)
		n.kept.register(p)
		p.claims("a")
		p.bring("a", run(0, 2))
		if _, ok := p.serve(); !ok || n.kept.underWay(p.ref.id) != p {
			t.Fatal("nobody may ask")
		}
		p.takes(2)
		p.end()
		flushed := make(chan error, 1)
		go func() { flushed <- n.Flush(t.Context()) }()
		time.Sleep(pastFor - time.Millisecond)
		b, err := p.blockFor(2*unit-1, 1, nil, nil)
		if err != nil || len(flushed) > 0 {
			t.Fatalf("%v; flushed %d", err, len(flushed))
		}
		b.release()
		p.served(2 * unit)
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		if _, err := p.blockFor(2*unit-1, 1, nil, nil); err == nil || len(p.past)+len(p.slots) > 0 {
			t.Errorf("%v; %d blocks are kept", err, len(p.past)+len(p.slots))
		}
	})
}

// What follows a Get that has ended has a second for the last blocks, and no longer than it takes to ask for them.
func TestLastBlocksStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, asked := range []bool{false, true} {
			p := testPull(t, 2, 1)
			p.n.kept.init(p.n)
			p.n.kept.register(p)
			p.claims("a")
			p.bring("a", run(0, 2))
			p.serve()
			p.served(2)
			p.takes(2)
			p.end()
			if first, ok := p.serve(); !ok || first != 0 {
				t.Fatalf("%d, %v", first, ok)
			}
			if asked {
				p.served(2 * unit)
			} else {
				p.served(3)
				time.Sleep(pastFor)
				synctest.Wait()
			}
			if _, ok := p.serve(); ok || len(p.past) > 0 {
				t.Errorf("%d blocks are kept", len(p.past))
			}
		}
	})
}
