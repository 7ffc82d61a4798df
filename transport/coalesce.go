package transport

import (
	"net/netip"
	"sync"

	"github.com/fnwire/fnwire/internal/udpx"
)

const (
	coalesceFrom  = 8 << 10   // smaller batches go out at once when nothing is queued
	coalesceBytes = 256 << 10 // queued at most; then the writer waits, as on a full socket
)

// coalescer gathers batches for a socket. quic-go hands over at most 20 KiB at a time, while one
// system call takes 64 KiB, and each costs the same walk through the kernel and its NATs. So while
// one call is under way, what comes meanwhile is put together, and goes out with the next. Nothing
// is held back: with nothing under way there is no wait.
type coalescer struct {
	udpx.Socket
	fail func(error)

	mu      sync.Mutex // guards what follows
	changed sync.Cond
	data    []byte
	batches []batch
	busy    bool // run is writing
	closed  bool
}

// batch is bytes of data up to end, from the end of the batch before.
type batch struct {
	end, seg int
	to       netip.AddrPort
}

// coalesce starts a goroutine that ends with Close.
func coalesce(s udpx.Socket, wg *sync.WaitGroup, fail func(error)) *coalescer {
	c := &coalescer{Socket: s, fail: fail}
	c.changed.L = &c.mu
	wg.Go(c.run)
	return c
}

// Write queues a batch that is big or finds others queued; else it writes. An error of a queued batch
// goes to fail: to QUIC it would mean no more than a lost packet, or the end of the connection.
func (c *coalescer) Write(b []byte, seg int, ecn byte, to netip.AddrPort) error {
	c.mu.Lock()
	if len(b) < coalesceFrom && !c.busy && len(c.batches) == 0 || len(b) > coalesceBytes {
		c.mu.Unlock()
		return c.Socket.Write(b, seg, ecn, to)
	}
	defer c.mu.Unlock()
	for len(c.data)+len(b) > coalesceBytes && !c.closed {
		c.changed.Wait()
	}
	if c.closed {
		return nil
	}
	c.data = append(c.data, b...)
	if n := len(c.batches); n > 0 && c.batches[n-1].takes(c.start(n-1), seg, to) {
		c.batches[n-1].end = len(c.data)
	} else {
		c.batches = append(c.batches, batch{len(c.data), seg, to})
	}
	c.changed.Broadcast()
	return nil
}

func (c *coalescer) start(i int) int {
	if i == 0 {
		return 0
	}
	return c.batches[i-1].end
}

// takes reports whether packets of seg bytes to an address can follow in the same call: all packets
// but the last must be of one size.
func (b batch) takes(start, seg int, to netip.AddrPort) bool {
	return b.to == to && b.seg == seg && (b.end-start)%seg == 0
}

func (c *coalescer) run() {
	var spare []byte // the buffers grow with use: an idle endpoint has none
	var batches []batch
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.batches) == 0 {
			if c.closed {
				return
			}
			c.changed.Wait()
		}
		spare, c.data = c.data, spare[:0]
		batches, c.batches = c.batches, batches[:0]
		c.busy = true
		c.mu.Unlock()
		start := 0
		for _, b := range batches {
			if err := c.Socket.Write(spare[start:b.end], b.seg, 0, b.to); err != nil {
				c.fail(err)
			}
			start = b.end
		}
		c.mu.Lock()
		c.busy = false
		c.changed.Broadcast()
	}
}

// Close lets what is queued go out first: it may be the last word of a connection.
func (c *coalescer) Close() error {
	c.mu.Lock()
	for (len(c.batches) > 0 || c.busy) && !c.closed {
		c.changed.Wait()
	}
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.Socket.Close()
}
