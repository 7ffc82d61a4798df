package zchunk

import "time"

// A byte goes raw in 1/R seconds, with R the rate at which the link takes bytes. Compressed it goes in c + ratio/R, where c is what compressing
// takes. The sum, although the next chunk is compressed while the last one is sent: so a transfer that uses a machine's only core up loses
// nothing by it, and the CPU counts as much as the time. Decompressing takes a quarter of c, at the other end, and is not counted.
const (
	startAt = 0.90 // compress when that takes so much of the time of raw bytes
	stopAt  = 0.97
	useful  = 0.97 // a chunk that was compressed goes so if it became so much of itself

	minRaw     = 2 << 10  // a smaller chunk is a packet or two
	sampleSize = 16 << 10 // of a chunk, to find out
	cold       = 3        // times what the bytes of a sample take to compress in the middle of a chunk, for want of warm caches

	// What is lost by trying, and by going on for too long, may be so much of the time in which the link takes bytes.
	share   = 0.02
	maxDebt = 50 * time.Millisecond
	maxRest = 10 * time.Millisecond
	maxFee  = 2 * time.Millisecond // of a try: it may have taken long because the machine was busy with something else

	smooth = 16 // chunks, about, that the cost is an average over: a busy machine takes the CPU away now and then

	small    = 4 * sampleSize // a chunk that is compressed without a sample
	shortest = 2 * time.Millisecond

	// A write of fewer bytes than a sample that takes less than this tells how quickly goroutines wake up, and not what the link takes.
	wakeUp = time.Millisecond

	// DefaultRate is what a link is thought to take before it was seen, in bytes a second: 600 Mbit/s, a common limit of functions.
	DefaultRate = 75e6

	memory = 512 << 10 // bytes on the wire that the rate is an average over
	prior  = 32 << 10
)

// Chooser decides for each chunk of a transfer whether it is compressed, by what the last chunks took. While they go raw it looks at a sample of one now and then, and if that
// promises something, compresses a whole chunk. It keeps account of what it gained and lost against raw bytes, and tries nothing while the losses are
// more than a share of the transfer's time. It is for one goroutine.
type Chooser struct {
	enc encoder

	wire float64 // bytes that the link took lately
	took float64 // seconds that they took

	on    bool
	ratio float64       // bytes that a byte of the last chunk became
	cost  float64       // seconds that compressing a byte takes, of the last chunks
	rest  time.Duration // that may be lost; below zero: a debt
}

// encoder appends the frame of a chunk to dst and tells what time that took.
type encoder interface {
	encode(dst, raw []byte) (frame []byte, took time.Duration)
}

// NewChooser returns a chooser for a transfer over a link that takes rate bytes a second, as far as is known; 0: nothing is known.
func NewChooser(c *Codec, rate float64) *Chooser { return newChooser(c, rate) }

func newChooser(enc encoder, rate float64) *Chooser {
	if rate <= 0 {
		rate = DefaultRate
	}
	return &Chooser{enc: enc, wire: prior, took: prior / rate}
}

// Chunk returns dst with the compressed chunk appended to it, or false if it is to go raw. Of dst it needs MaxFrame bytes of capacity lest
// it allocate, and may overwrite them all.
func (c *Chooser) Chunk(dst, raw []byte) ([]byte, bool) {
	if !c.Looks(len(raw)) || !c.on && len(raw) > small && !c.promises(dst, raw) {
		return nil, false
	}
	out, took := c.enc.encode(dst, raw)
	saved := len(raw) - (len(out) - len(dst))
	cost, part, fee := took.Seconds()/float64(len(raw)), startAt, maxFee
	if c.on {
		cost, part, fee = c.cost+(cost-c.cost)/smooth, stopAt, maxDebt
	}
	c.ratio, c.cost = 1-float64(saved)/float64(len(raw)), cost
	c.on = c.pays(c.ratio, c.cost, part)
	used := c.ratio <= useful
	if used {
		took -= time.Duration(float64(saved) / c.Rate() * float64(time.Second))
	}
	c.spend(min(took, fee))
	return out, used
}

// Looks tells whether Chunk would look at a chunk of n bytes at all.
func (c *Chooser) Looks(n int) bool {
	return n >= minRaw && n <= MaxRaw && (n > small || !c.short(n)) && (c.on || c.rest >= 0)
}

// short tells whether a chunk of n bytes is on its way before anybody could care.
func (c *Chooser) short(n int) bool { return float64(n) < c.Rate()*shortest.Seconds() }

// promises tells whether a sample of a chunk makes it worth a try.
func (c *Chooser) promises(dst, raw []byte) bool {
	at := (len(raw) - sampleSize) / 2
	out, took := c.enc.encode(dst, raw[at:at+sampleSize])
	c.spend(min(took, maxFee))
	return c.pays(float64(len(out)-len(dst))/sampleSize, took.Seconds()/sampleSize/cold, startAt)
}

func (c *Chooser) spend(t time.Duration) { c.rest = min(max(c.rest-t, -maxDebt), maxRest) }

// pays tells whether a compressed byte takes less than a part of a raw one's time.
func (c *Chooser) pays(ratio, cost, part float64) bool { return cost*c.Rate()+ratio < part }

// Wrote notes that the link took n bytes, compressed or not, in a time.
func (c *Chooser) Wrote(n int, took time.Duration) {
	if n >= sampleSize || took >= wakeUp {
		c.wire += float64(n)
		c.took += took.Seconds()
		if c.wire > memory {
			c.took *= memory / c.wire
			c.wire = memory
		}
	}
	c.spend(-time.Duration(share * float64(took)))
}

// Rate is what the link takes, in bytes a second.
func (c *Chooser) Rate() float64 { return c.wire / max(c.took, 1e-9) }
