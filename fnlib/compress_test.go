package fnlib_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/natsim"
)

// records is a state that compresses well, and of which no two parts are alike.
func records(size int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"id": %d, "kind": "record of a function's state", "next": %d}`+"\n", i, i+1)
	}
	return b.Bytes()[:size]
}

// compressing is two functions that have a link, in virtual time, where compressing takes none.
func compressing(t *testing.T, change func(*fnlib.Config)) (a, b *fnlib.Node) {
	w := newBubble(t, rtt)
	fa, fb := w.functions(true, [2]*natsim.NAT{})
	a, _ = fa.join(change)
	b, _ = fb.join()
	go receiving(t, b)
	send(t, a, "b", "hello")
	return a, b
}

// A state that compresses is there sooner; one that does not, or is not to be compressed, goes as it is.
func TestCompressedStateIsThereSooner(t *testing.T) {
	const size = 2 << 20
	text := records(size)
	synctest.Test(t, func(t *testing.T) {
		a, _ := compressing(t, func(*fnlib.Config) {})
		took := map[string]time.Duration{}
		for _, c := range []struct {
			name  string
			state []byte
			off   bool
			packs bool
		}{
			{"text", text, false, true}, {"off", text, true, false}, {"random", randomBytes(size), false, false},
		} {
			rc, err := a.SendWith(t.Context(), "b", c.name, bytes.NewReader(c.state), fnlib.SendOptions{NoCompress: c.off})
			if err != nil {
				t.Fatal(err)
			}
			if rc.Bytes != size || c.packs != (rc.WireBytes < size/4) || !c.packs != (rc.WireBytes >= size && rc.WireBytes < size+size/100) {
				t.Errorf("%s: %d of %d bytes on the wire", c.name, rc.WireBytes, rc.Bytes)
			}
			took[c.name] = rc.Phases.Total
		}
		if took["text"] >= took["off"] || took["random"] > took["off"] {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		a, _ := compressing(t, func(c *fnlib.Config) { c.NoCompress = true })
		if rc := send(t, a, "b", string(text)); rc.WireBytes < size {
			t.Errorf("%d of %d bytes on the wire", rc.WireBytes, rc.Bytes)
		}
	})
}

// A compressed state whose link breaks within a chunk goes on where its receiver is, in bytes of the state.
func TestCompressedStateOutlivesItsLinks(t *testing.T) {
	state := records(12<<20 + 345)
	synctest.Test(t, func(t *testing.T) {
		w := newBubble(t, rtt)
		fa, fb := w.functions(true, [2]*natsim.NAT{})
		a, _ := fa.join()
		b, _ := fb.join()
		sent := make(chan fnlib.Receipt, 1)
		go func() {
			rc, err := a.Send(t.Context(), "b", "k", io.MultiReader(bytes.NewReader(state))) // no io.Seeker
			if err != nil {
				t.Error(err)
			}
			sent <- rc
		}()
		in, err := b.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for i := range 4 {
			if _, err := io.CopyN(&got, in, 2<<20+777); err != nil {
				t.Fatal(err)
			}
			if fnlib.BreakLinks([]*fnlib.Node{a, b}[i%2]) == 0 {
				t.Fatal("no link to break")
			}
		}
		if _, err := io.Copy(&got, in); err != nil || !bytes.Equal(got.Bytes(), state) {
			t.Fatalf("%d bytes differ from those that were sent, %v", got.Len(), err)
		}
		if err := in.Accept(); err != nil {
			t.Fatal(err)
		}
		if rc := <-sent; rc.Bytes != int64(len(state)) || rc.WireBytes > rc.Bytes {
			t.Errorf("receipt %+v", rc)
		}
	})
}

// What is stored is compressed too.
func TestStoredStateIsCompressed(t *testing.T) {
	s, _ := openStore(t)
	with := func(c *fnlib.Config) { c.Store = s }
	state := records(3 << 20)
	synctest.Test(t, func(t *testing.T) {
		fa, fb := newBubble(t, rtt).functions(true, [2]*natsim.NAT{})
		a, _ := fa.join(with)
		for _, off := range []bool{false, true} {
			rc, err := a.SendWith(t.Context(), "b", "k", bytes.NewReader(state), fnlib.SendOptions{StoreOnly: true, NoCompress: off})
			if err != nil || off != (rc.WireBytes >= rc.Bytes) || !off != (rc.WireBytes < rc.Bytes/4) {
				t.Errorf("receipt %+v, %v", rc, err)
			}
		}
		b, _ := fb.join(with)
		for range 2 {
			if _, got, err := accept(t.Context(), b); err != nil || !bytes.Equal(got, state) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		}
	})
}

// Many states at once share a codec and buffers.
func TestManyCompressedStates(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	const states = 24
	state := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "state %d, ", i), 1<<17+i<<10) }
	errs := make(chan error, 2*states)
	for i := range states {
		go func() {
			_, err := a.Send(t.Context(), "b", fmt.Sprint(i), bytes.NewReader(state(i)))
			errs <- err
		}()
		go func() {
			in, got, err := accept(t.Context(), b)
			if err == nil {
				var i int
				if _, err = fmt.Sscan(in.Key, &i); err == nil && !bytes.Equal(got, state(i)) {
					err = errors.New("not the bytes that were sent")
				}
			}
			errs <- err
		}()
	}
	for range 2 * states {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
