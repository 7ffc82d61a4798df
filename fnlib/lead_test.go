package fnlib_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/ident"
)

// chain is a function that has put a state, and others that get it. All have links to one another, which are direct.
type chain struct {
	t       *testing.T
	w       *bubble
	state   []byte
	ref     fnlib.Ref
	source  *fnlib.Node
	getters []*fnlib.Node
	sockets []*memSocket // theirs
}

func newChain(t *testing.T, getters, size int, opt fnlib.PutOptions) *chain {
	c := &chain{t: t, w: newBubble(t, rtt), state: randomBytes(size)}
	for i := range getters + 1 {
		id, err := ident.New()
		if err != nil {
			t.Fatal(err)
		}
		f := &function{w: c.w, name: fmt.Sprint("f", i), id: id, socket: c.w.socket(netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 4000), nil)}
		n, _ := f.join(func(c *fnlib.Config) { c.PutMemory = 64 << 20 })
		if i == 0 {
			c.source = n
			continue
		}
		c.getters, c.sockets = append(c.getters, n), append(c.sockets, f.socket)
		for j := range i {
			if _, err := n.Ping(t.Context(), fmt.Sprint("f", j), fnlib.Auto); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.ref = put(t, c.source, c.state, opt)
	time.Sleep(10 * time.Second)
	return c
}

func (c *chain) close() {
	for _, n := range c.getters {
		_ = n.Close()
	}
	_ = c.source.Close()
}

// begin has a getter begin.
func (c *chain) begin(i int, opt fnlib.GetOptions) *fnlib.Got {
	c.t.Helper()
	g, err := c.getters[i].Get(c.t.Context(), c.ref, opt)
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// rest reads what is left, after so many bytes.
func (c *chain) rest(g *fnlib.Got, read int) {
	got, err := io.ReadAll(g)
	if err != nil || !bytes.Equal(got, c.state[read:]) {
		c.t.Errorf("%d bytes of %d, %v", read+len(got), len(c.state), err)
	}
}

// all has all getters get the state at once, a moment one after the other, and returns from whom each had how many bytes.
func (c *chain) all(opt fnlib.GetOptions) []map[string]int64 {
	from := make([]map[string]int64, len(c.getters))
	var wg sync.WaitGroup
	for i := range c.getters {
		time.Sleep(time.Millisecond)
		wg.Go(func() {
			g, err := c.getters[i].Get(c.t.Context(), c.ref, opt)
			if err != nil {
				c.t.Error(err)
				return
			}
			c.rest(g, 0)
			from[i] = g.From()
		})
	}
	wg.Wait()
	return from
}

// TestChain: of functions that get a state at the same time, each has it from the one before, and the source sends it once.
func TestChain(t *testing.T) {
	for _, hold := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newChain(t, 4, 7<<20+5, fnlib.PutOptions{}) // all of which is kept: without a line's rate, half of a state comes in its last round trip
			defer c.close()
			for i, from := range c.all(fnlib.GetOptions{Hold: hold}) {
				if got := from[fmt.Sprint("f", i)]; got != int64(len(c.state)) {
					t.Errorf("f%d: %v", i+1, from)
				}
			}
		})
	}
}

// What is small, or may be read so often only, comes from the source.
func TestNoChain(t *testing.T) {
	for size, opt := range map[int]fnlib.PutOptions{1<<20 - 1: {}, 3 << 20: {Reads: 3}} {
		synctest.Test(t, func(t *testing.T) {
			c := newChain(t, 3, size, opt)
			defer c.close()
			for i, from := range c.all(fnlib.GetOptions{}) {
				if from["f0"] != int64(size) {
					t.Errorf("f%d: %v", i+1, from)
				}
			}
		})
	}
}

// TestLeadEnds: when the lead dies, stops reading, or closes, those behind it get the rest elsewhere, half a second later at most.
func TestLeadEnds(t *testing.T) {
	for name, end := range map[string]func(c *chain, g *fnlib.Got){
		"silent":  func(c *chain, _ *fnlib.Got) { _ = c.sockets[0].Close() },
		"closes":  func(c *chain, g *fnlib.Got) { _ = g.Close() },
		"leaves":  func(c *chain, _ *fnlib.Got) { _ = c.getters[0].Close() },
		"no more": func(*chain, *fnlib.Got) {}, // reads no further
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newChain(t, 3, 20<<20, fnlib.PutOptions{})
				defer c.close()
				first := c.begin(0, fnlib.GetOptions{})
				defer first.Close()
				second := c.begin(1, fnlib.GetOptions{})
				third := c.begin(2, fnlib.GetOptions{})
				if _, err := io.ReadFull(first, make([]byte, 3<<20)); err != nil {
					t.Fatal(err)
				}
				var wg sync.WaitGroup
				began := time.Now()
				end(c, first)
				wg.Go(func() { c.rest(second, 0) })
				c.rest(third, 0)
				wg.Wait()
				if took := time.Since(began); took > 5*time.Second { // most of it is slow start
					t.Errorf("took %v", took)
				}
				if from := second.From(); from["f1"] == 0 || from["f0"] == 0 || from["f0"]+from["f1"] != int64(len(c.state)) {
					t.Errorf("f2: %v", from)
				}
				if from := third.From(); from["f2"] < 15<<20 {
					t.Errorf("f3: %v", from)
				}
			})
		})
	}
}

// TestLyingLead: a block that is not that of the ref is not given out, and has the rest come from the source.
func TestLyingLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2, 20<<20, fnlib.PutOptions{})
		defer c.close()
		first, second := c.begin(0, fnlib.GetOptions{}), c.begin(1, fnlib.GetOptions{})
		defer first.Close()
		if _, err := io.ReadFull(first, make([]byte, 6<<20)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		fnlib.CorruptPulled(c.getters[0], c.ref, 72) // which the second one has no room for yet
		c.rest(second, 0)
		if from := second.From(); from["f0"] == 0 || from["f1"] == 0 || from["f1"] > 72*128<<10 {
			t.Errorf("%v", from)
		}
	})
}

// TestGetAgain: a function that ends a Get and begins another one waits for nobody who waits for it.
func TestGetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2, 20<<20, fnlib.PutOptions{})
		defer c.close()
		first, second := c.begin(0, fnlib.GetOptions{}), c.begin(1, fnlib.GetOptions{})
		time.Sleep(5 * time.Second) // until the second one has no room for more
		_ = first.Close()
		time.Sleep(100 * time.Millisecond)
		again := c.begin(0, fnlib.GetOptions{}) // which has the second one as its lead
		time.Sleep(100 * time.Millisecond)
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { c.rest(second, 0) })
		c.rest(again, 0)
		wg.Wait()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestLateFollower: who begins when its lead is far on has from it what that still has, and the rest from the source.
func TestLateFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChain(t, 2, 20<<20, fnlib.PutOptions{})
		defer c.close()
		first := c.begin(0, fnlib.GetOptions{})
		if _, err := io.ReadFull(first, make([]byte, 6<<20)); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		second := c.begin(1, fnlib.GetOptions{})
		wg.Go(func() { c.rest(second, 0) })
		time.Sleep(time.Second)
		c.rest(first, 6<<20)
		wg.Wait()
		if from := second.From(); from["f0"] == 0 || from["f1"] == 0 || from["f0"]+from["f1"] != int64(len(c.state)) {
			t.Errorf("%v", from)
		}
	})
}

// TestChainUnderChurn: whoever joins a chain, closes its Get, reads slowly or leaves, those that read on get the state, by real sockets.
func TestChainUnderChurn(t *testing.T) {
	w := newWorld(t, 1)
	source := w.joinWith(t, "source", func(c *fnlib.Config) { c.PutMemory = 32 << 20 })
	state := randomBytes(12<<20 + 3)
	ref := put(t, source, state, fnlib.PutOptions{})
	var wg sync.WaitGroup
	for i := range 6 {
		n := w.join(t, fmt.Sprint("g", i))
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 5 {
				g, err := n.Get(t.Context(), ref, fnlib.GetOptions{Hold: r.IntN(4) == 0})
				if err != nil {
					t.Error(err)
					return
				}
				part := make([]byte, r.IntN(len(state)))
				if _, err := io.ReadFull(g, part); err != nil || !bytes.Equal(part, state[:len(part)]) {
					t.Errorf("%s: %d bytes, %v", n.Name(), len(part), err)
				}
				if r.IntN(2) == 0 {
					time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond)
				}
				if r.IntN(3) > 0 {
					rest, err := io.ReadAll(g)
					if err != nil || !bytes.Equal(rest, state[len(part):]) {
						t.Errorf("%s: %d bytes after %d, %v", n.Name(), len(rest), len(part), err)
					}
				}
				_ = g.Close()
			}
			if i%2 == 0 {
				_ = n.Close()
			}
		})
	}
	wg.Wait()
}
