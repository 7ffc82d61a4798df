package wan

import (
	"math/bits"
	"time"
)

// parcel is a frame under way.
type parcel struct {
	at   time.Duration
	data []byte
}

// fifo is a queue whose parcels arrive in the order in which they were put in. Its memory is reused.
type fifo struct {
	ring       []parcel // a power of 2, or none
	head, many int
}

func (f *fifo) empty() bool    { return f.many == 0 }
func (f *fifo) first() *parcel { return &f.ring[f.head] }

func (f *fifo) push(p parcel) {
	if f.many == len(f.ring) {
		ring := make([]parcel, max(64, 2*f.many))
		n := copy(ring, f.ring[f.head:])
		copy(ring[n:], f.ring[:f.head])
		f.ring, f.head = ring, 0
	}
	f.ring[(f.head+f.many)&(len(f.ring)-1)] = p
	f.many++
}

func (f *fifo) pop() parcel {
	p := f.ring[f.head]
	f.ring[f.head] = parcel{}
	f.head, f.many = (f.head+1)&(len(f.ring)-1), f.many-1
	return p
}

// pool keeps buffers by the power of 2 that they have room for. It never has more than were in use at one time.
type pool [18][][]byte

func (p *pool) get(n int) []byte {
	class := bits.Len(uint(n - 1))
	if free := p[class]; len(free) > 0 {
		b := free[len(free)-1]
		p[class] = free[:len(free)-1]
		return b[:n]
	}
	return make([]byte, n, 1<<class)
}

func (p *pool) put(b []byte) {
	class := bits.Len(uint(cap(b) - 1))
	p[class] = append(p[class], b)
}
