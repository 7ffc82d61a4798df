package fnlib

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"time"
)

// Digest is the SHA-256 of a state.
type Digest [sha256.Size]byte

// String returns 64 hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText makes a Digest a string in JSON.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Receipt says what became of a state: the receiving application has accepted it, or it is durably stored and the
// receiver will find it.
type Receipt struct {
	From, To, Key string
	Bytes         int64
	Digest        Digest
	// Stored names the store that keeps the state for the receiver; empty: the receiver has accepted it.
	Stored string
	// Path tells over what the bytes went: "direct", "relay", or "relay+direct" if the link moved
	// while they did; "store" if they were stored; "rendezvous" if they went early. DirectBytes of them were written while the link was direct.
	Path        string
	DirectBytes int64
	// WireBytes is what the state's chunks took on the wire, or in the store: less than Bytes if they were compressed, more if some were
	// sent again.
	WireBytes int64
	Reason    string // why the link was relayed at the end, if it was; why the state was stored, if it was
	RTT       time.Duration
	Phases    Phases
}

// Phases are the times that a transfer took, one after the other.
type Phases struct {
	Answer   time.Duration // from the call to the peer's answer; 0 on a link that was up
	Link     time.Duration // from there until the QUIC handshake was done; 0 likewise
	Transfer time.Duration // from there until the last byte was handed to QUIC
	Confirm  time.Duration // from there to the receipt
	Total    time.Duration
}

// Progress is called from time to time during a transfer with the bytes so far.
type Progress func(bytes int64, path string)

// SendOptions change how Send works. The zero value is the default.
type SendOptions struct {
	Path     Path
	Size     int64    // of the state if known, for the receiver's progress; a wrong one is an error; 0: asked of r if it can tell (Len, or a file's size)
	Progress Progress // called at most every 100 ms, and at the end

	NoCompress bool // the state is sent as it is; else chunks of it are compressed where that makes the transfer faster

	StoreOnly bool // the state goes to Config.Store and over no link
	NoStore   bool // the state never goes to Config.Store
}

// Send hands a state to the function of that name and returns when its application has accepted it,
// with the digest checked by the receiver. If nobody holds the name, it waits until somebody joins. If the link breaks, it
// goes on where it was as soon as there is another one; if the instance is replaced by a newer one before it has accepted,
// that one gets the state from its beginning, if r is an io.Seeker or little was taken of it. No instance accepts it twice.
//
// With Config.Store a state that cannot be handed over in time is stored, and the receipt says so: when there was no link for
// Config.SpillAfter or the rendezvous cannot be asked for one, shortly before the context's deadline, or when the node closes. While a store
// fails, it and the receiver are tried again, five times. If the state can be stored
// no more, since r was read in part and is no io.Seeker, that is an error as without a store.
//
// Memory is bounded whatever the size of the state: at most 16 MiB. Errors match ErrRejected, ErrDigest, ErrLink, ErrStore,
// ErrNoDirect, ErrName, ErrClosed, the context's errors, or are r's own. Without a receipt a state was not handed over, but after ErrLink, ErrStore or
// a context's error its receiver may have accepted it without the sender learning. Send does not outlast its context
// if r blocks: then r must not be used before its Read has returned, which Send does not wait for.
func (n *Node) Send(ctx context.Context, to, key string, r io.Reader) (Receipt, error) {
	return n.SendWith(ctx, to, key, r, SendOptions{})
}

// SendWith is Send with options.
func (n *Node) SendWith(ctx context.Context, to, key string, r io.Reader, opt SendOptions) (Receipt, error) {
	rc, err := n.send(ctx, to, key, r, opt)
	if err != nil {
		err = fmt.Errorf("fnlib: send to %s: %w", to, err)
	}
	if n.cfg.Metrics != nil {
		n.cfg.Metrics.Sent(rc, err)
	}
	return rc, err
}

func (n *Node) send(ctx context.Context, to, key string, r io.Reader, opt SendOptions) (Receipt, error) {
	defer n.busy.begin()()
	began := time.Now()
	rc := Receipt{From: n.cfg.Name, To: to, Key: key}
	if len(key) > MaxKey {
		return rc, fmt.Errorf("key of %d bytes, at most %d", len(key), MaxKey)
	}
	o := newOutgoing(n, to, key, r, opt)
	defer o.close()
	err := o.deliverOrStore(ctx, &rc)
	rc.Phases.Total = time.Since(began)
	return rc, err
}

// sizeOf finds the size of a reader that can tell, such as a file or a bytes.Reader.
func sizeOf(r io.Reader, given int64) uint64 {
	if given > 0 {
		return uint64(given)
	}
	switch v := r.(type) {
	case interface{ Len() int }:
		return uint64(v.Len())
	case *os.File:
		if st, err := v.Stat(); err == nil && st.Mode().IsRegular() {
			if at, err := v.Seek(0, io.SeekCurrent); err == nil && at <= st.Size() {
				return uint64(st.Size() - at)
			}
		}
	}
	return unknownSize
}
