package relay

import (
	"encoding/binary"
	"sync"
)

// The same frames over TLS.
const (
	// WebSocketPath is where a relay takes WebSocket connections.
	WebSocketPath = "/fnwire/v1"
	// MaxMessage is the longest WebSocket message, in bytes.
	MaxMessage = 64 << 10
	// QueueBytes is the most that an Outbox holds.
	QueueBytes = 4 * MaxMessage

	lengthBytes = 2
)

// AppendToMessage appends a frame, with its length before it, to a WebSocket message.
func AppendToMessage(message, frame []byte) []byte {
	message = binary.BigEndian.AppendUint16(message, uint16(len(frame)))
	return append(message, frame...)
}

// Runs takes a WebSocket message apart, and overwrites it: f gets frames that lie side by side, each of seg
// bytes, the last one maybe shorter, as a UDP socket with receive offload would give them. It returns
// false where a message is malformed; f has had the frames before that.
func Runs(message []byte, f func(frames []byte, seg int)) bool {
	start, end, seg := 0, 0, 0 // of the run, which is moved together
	flush := func() {
		if end > start {
			f(message[start:end], seg)
		}
	}
	for at := 0; at < len(message); {
		rest := message[at:]
		if len(rest) < lengthBytes {
			flush()
			return false
		}
		n := int(binary.BigEndian.Uint16(rest))
		if n == 0 || n > MaxFrame || n > len(rest)-lengthBytes {
			flush()
			return false
		}
		if end == start || n > seg || (end-start)%seg != 0 {
			flush()
			start, end, seg = at, at, n
		}
		end += copy(message[end:], rest[lengthBytes:lengthBytes+n])
		at += lengthBytes + n
	}
	flush()
	return true
}

type message struct {
	n int
	b [MaxMessage]byte
}

var messages = sync.Pool{New: func() any { return new(message) }}

// Outbox is the bounded queue before a connection over TLS: what does not fit is dropped, as a UDP socket
// does, so that a slow reader costs no more memory than QueueBytes, and an idle one none. The zero
// Outbox is empty. Put is for any goroutine, Next for one.
type Outbox struct {
	mu     sync.Mutex // guards what follows
	wake   chan struct{}
	queue  []*message // the first may be under way
	busy   bool       // it is
	ending bool
}

// waker runs under o.mu.
func (o *Outbox) waker() chan struct{} {
	if o.wake == nil {
		o.wake = make(chan struct{}, 1)
	}
	return o.wake
}

func (o *Outbox) nudge() {
	select {
	case o.waker() <- struct{}{}:
	default:
	}
}

// Put queues frames of seg bytes each, the last maybe shorter, and returns how many were dropped. It does not keep b.
func (o *Outbox) Put(b []byte, seg int) (dropped int) {
	if seg <= 0 || seg > len(b) {
		seg = len(b)
	}
	if len(b) == 0 || seg > MaxFrame {
		return 1
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(b) > 0 {
		frame := b[:min(seg, len(b))]
		b = b[len(frame):]
		m := o.room(lengthBytes + len(frame))
		if m == nil {
			dropped++
			continue
		}
		m.n = len(AppendToMessage(m.b[:m.n], frame))
	}
	o.nudge()
	return dropped
}

// room returns a message to which n bytes can be added, or nil.
func (o *Outbox) room(n int) *message {
	if o.ending {
		return nil
	}
	if last := len(o.queue) - 1; last >= 0 && (last > 0 || !o.busy) && o.queue[last].n+n <= MaxMessage {
		return o.queue[last]
	}
	if len(o.queue) >= QueueBytes/MaxMessage {
		return nil
	}
	m := messages.Get().(*message)
	m.n = 0
	o.queue = append(o.queue, m)
	return m
}

// End makes Next return nil when what is queued has gone out. Put drops from now on.
func (o *Outbox) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ending = true
	o.nudge()
}

// Next waits for a message to send, which is good until the next call. It returns nil after End, or at once
// when done is closed.
func (o *Outbox) Next(done <-chan struct{}) []byte {
	for {
		o.mu.Lock()
		wake := o.waker()
		if o.busy {
			messages.Put(o.queue[0])
			o.queue[0] = nil
			o.queue = o.queue[1:]
			o.busy = false
			if len(o.queue) == 0 {
				o.queue = nil
			}
		}
		if len(o.queue) > 0 {
			o.busy = true
			m := o.queue[0]
			o.mu.Unlock()
			select {
			case <-done:
				return nil
			default:
				return m.b[:m.n]
			}
		}
		ending := o.ending
		o.mu.Unlock()
		if ending {
			return nil
		}
		select {
		case <-wake:
		case <-done:
			return nil
		}
	}
}
