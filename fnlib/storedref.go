package fnlib

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/internal/seal"
)

// A state of Put is an object JOB/ref/ID of the store, sealed under that name: how many Gets may read it (4 bytes, big endian, all ones: any
// number), the SHA-256 of each block, the blocks. A store cannot count: as long as more than one may read it, it says so for ever.

const spillsAtOnce = 16

func (n *Node) refKey(id stateID) string { return n.key.ID().String() + "/ref/" + id.String() }

// storeHeld gives a state to the store, unless that has it.
func (n *Node) storeHeld(ctx context.Context, h *held) error {
	k := &n.kept
	k.mu.Lock()
	stored, left := h.stored, h.left()
	k.mu.Unlock()
	if stored {
		return nil
	}
	key := n.refKey(h.id)
	pr, pw := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		_ = pw.CloseWithError(n.writeHeld(pw, key, h, left)) // never fails (io.PipeWriter)
	}()
	err := n.cfg.Store.Put(ctx, key, pr, store.PutOptions{
		TTL: time.Until(h.expires), Size: seal.Size(4 + int64(len(h.digests))*int64(len(Digest{})) + h.size),
	})
	_ = pr.CloseWithError(errStopped) // never fails; ends the writer if Put has ended early
	<-written
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	k.mu.Lock()
	h.stored = true
	why := h.why
	k.mu.Unlock()
	if why == gotReadOut || why == gotDropped { // meanwhile
		n.removeStored(h.id)
		return statusError(why, n.cfg.Name)
	}
	return nil
}

func (n *Node) writeHeld(w io.Writer, key string, h *held, left uint32) error {
	buffered := bufio.NewWriterSize(w, 256<<10)
	sealed, err := seal.NewWriter(buffered, n.key.Derive(sealPurpose), key)
	if err != nil {
		return err
	}
	if _, err := sealed.Write(appendDigests(binary.BigEndian.AppendUint32(nil, left), h.digests)); err != nil {
		return err
	}
	if _, err := io.Copy(sealed, io.NewSectionReader(h.content, 0, h.size)); err != nil {
		return err
	}
	if err := sealed.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

// removeStored deletes a state that nobody may get any more.
func (n *Node) removeStored(id stateID) {
	ctx, cancel := context.WithTimeout(context.Background(), removeWithin)
	defer cancel()
	if err := n.cfg.Store.Delete(ctx, n.refKey(id)); err != nil {
		n.log.Warn("fnlib: a state that was read out or dropped could not be deleted from the store", "state", id, "error", err)
	}
}

// spillKept gives the store what was Put here and is still wanted, as the node closes.
func (n *Node) spillKept() {
	ctx, cancel := context.WithTimeout(context.Background(), n.grace())
	defer cancel()
	k := &n.kept
	k.mu.Lock()
	var wanted []*held
	for _, h := range k.states {
		if h.spills && h.why == gotHere && !h.stored {
			wanted = append(wanted, h)
		}
	}
	k.mu.Unlock()
	if len(wanted) > 0 && n.cfg.Store == nil {
		n.log.Info("fnlib: closing with states that others could have got yet, and no store", "states", len(wanted))
		return
	}
	room := make(chan struct{}, spillsAtOnce)
	var wg sync.WaitGroup
	for _, h := range wanted {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := n.storeHeld(ctx, h); err != nil && !errors.Is(err, ErrNotFound) {
				n.log.Error("fnlib: a state that others could have got yet is lost", "state", h.id, "error", err)
			}
		})
	}
	wg.Wait()
}
