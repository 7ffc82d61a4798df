package fnlib_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// What Join says when it cannot.
func TestJoinErrors(t *testing.T) {
	w := newWorld(t, 0)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	for name, c := range map[string]struct {
		change func(*fnlib.Config)
		want   error
		say    string
	}{
		"wrong job key":      {func(c *fnlib.Config) { c.JobKey = job.NewKey().Encode() }, rendezvous.ErrNotAllowed, "job"},
		"garbled job key":    {func(c *fnlib.Config) { c.JobKey = "secret" }, nil, "32 bytes in base64"},
		"early, too much":    {func(c *fnlib.Config) { c.EarlyBytes = fnlib.MaxEarly + 1 }, nil, fnlib.EnvEarly},
		"window, too little": {func(c *fnlib.Config) { c.Window = fnlib.MinWindow - 1 }, nil, fnlib.EnvWindow},
		"window, too much":   {func(c *fnlib.Config) { c.Window = fnlib.MaxWindow + 1 }, nil, fnlib.EnvWindow},
		"no job key":         {func(c *fnlib.Config) { c.JobKey = "" }, nil, fnlib.EnvJobKey},
		"no URL":             {func(c *fnlib.Config) { c.URL = "" }, nil, fnlib.EnvURL},
		"no name":            {func(c *fnlib.Config) { c.Name = "" }, fnlib.ErrName, fnlib.EnvName},
		"illegal name":       {func(c *fnlib.Config) { c.Name = "a.b" }, fnlib.ErrName, "letters, digits"},
		"no rendezvous":      {func(c *fnlib.Config) { c.URL = "nats://" + closed.Addr().String() }, rendezvous.ErrUnreachable, "unreachable"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		cfg := w.config("a")
		c.change(&cfg)
		n, err := fnlib.Join(ctx, cfg)
		cancel()
		switch {
		case err == nil:
			_ = n.Close()
			t.Errorf("%s: joined", name)
		case c.want != nil && !errors.Is(err, c.want), !strings.Contains(err.Error(), c.say):
			t.Errorf("%s: %v", name, err)
		case strings.Contains(err.Error(), cfg.JobKey) && cfg.JobKey != "":
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
}

// A newer instance takes the name; the older one is closed and says so.
func TestFenced(t *testing.T) {
	w := newWorld(t, 1)
	a, old := w.join(t, "a"), w.join(t, "b")
	if _, err := a.Ping(t.Context(), "b", fnlib.Auto); err != nil {
		t.Fatal(err)
	}
	b := w.join(t, "b")
	if b.Epoch() <= old.Epoch() {
		t.Errorf("epochs %d, then %d", old.Epoch(), b.Epoch())
	}
	<-old.Done()
	if err := old.Err(); !errors.Is(err, fnlib.ErrFenced) {
		t.Errorf("old instance: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := accept(t.Context(), b)
		done <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Send(ctx, "b", "k", strings.NewReader("state")); err != nil {
		t.Errorf("send to the new instance: %v", err)
	} else if err := <-done; err != nil {
		t.Error(err)
	}
	cfg := w.config("b")
	cfg.Exclusive = true
	if _, err := fnlib.Join(t.Context(), cfg); !errors.Is(err, rendezvous.ErrHeld) {
		t.Errorf("exclusive join of a held name: %v", err)
	}
}

// The rendezvous dies: links go on. It comes back with no memory: functions join again, and calls work.
func TestRendezvousDiesAndReturns(t *testing.T) {
	w := &world{key: job.NewKey()}
	stop := w.startRendezvous(t, "127.0.0.1:0")
	r := w.startRelay(t, "r1", loopbackAny)
	_ = r
	a, b := w.join(t, "a"), w.join(t, "b")
	if _, err := a.Ping(t.Context(), "b", fnlib.Auto); err != nil {
		t.Fatal(err)
	}
	listen := strings.TrimPrefix(w.url, "nats://")
	stop()
	if _, err := a.Ping(t.Context(), "b", fnlib.Auto); err != nil {
		t.Errorf("ping over a link that was up: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	if _, err := a.Ping(ctx, "c", fnlib.Auto); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("call without a rendezvous: %v", err)
	}
	cancel()
	w.startRendezvous(t, listen)
	w.startRelay(t, "r2", loopbackAny)
	c := w.join(t, "c")
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, name := range []string{"a", "b"} {
		if _, err := c.Ping(ctx, name, fnlib.Auto); err != nil {
			t.Errorf("%s after the rendezvous came back: %v", name, err)
		}
	}
	_ = b
}

// The relay dies: a stream over it stops; the relay comes back at its address, and the stream goes on.
func TestRelayDiesAndReturns(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b", fnlib.RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	echo := func(s string) error {
		if _, err := c1.Write([]byte(s)); err != nil {
			return err
		}
		got := make([]byte, len(s))
		_, err := io.ReadFull(c2, got)
		return err
	}
	if err := echo("before"); err != nil {
		t.Fatal(err)
	}
	addr := w.rels[0].addr
	w.rels[0].stop()
	heard := make(chan error, 1)
	go func() { heard <- echo("while it is gone") }()
	w.startRelay(t, "r1", addr)
	if err := <-heard; err != nil {
		t.Errorf("stream over a relay that came back: %v", err)
	}
}

// A relay that is added while functions run is used.
func TestRelayAdded(t *testing.T) {
	w := newWorld(t, 0)
	a, b := w.join(t, "a"), w.join(t, "b")
	w.startRelay(t, "r9", loopbackAny)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, n := range []*fnlib.Node{a, b} {
		if err := n.WaitRelay(ctx); err != nil {
			t.Fatal(err)
		}
	}
	p, err := a.Ping(ctx, "b", fnlib.RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	if p.Link.Path != "relay" || p.Link.Remote != "r9" {
		t.Errorf("link %+v", p.Link)
	}
}

// The receiver is killed in the middle of a state: the next instance of the name gets it from its beginning, if the state
// can be read again. Else the sender is told.
func TestReceiverKilled(t *testing.T) {
	w := newWorld(t, 1)
	a := w.join(t, "a")
	state := randomBytes(64 << 20)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, again := range []bool{true, false} {
		name := fmt.Sprintf("b-%v", again)
		var r io.Reader = bytes.NewReader(state)
		if !again {
			r = io.MultiReader(r)
		}
		cmd, lines := w.receiver(t, name)
		sent := make(chan error, 1)
		go func() {
			_, err := a.Send(ctx, name, "k", r)
			sent <- err
		}()
		lines.expect(t, "receiving <nil>")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		b := w.join(t, name)
		if !again {
			if _, _, err := accept(ctx, b); !errors.Is(err, fnlib.ErrLink) {
				t.Errorf("a state without its beginning: %v", err)
			}
			if err := <-sent; !errors.Is(err, fnlib.ErrLink) || !strings.Contains(err.Error(), "io.Seeker") {
				t.Errorf("a state that cannot be read again: %v", err)
			}
			continue
		}
		if _, got, err := accept(ctx, b); err != nil || !bytes.Equal(got, state) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	}
}

// receiver starts a process that joins under a name and reads 20 MiB of the first state.
func (w *world) receiver(t *testing.T, name string) (*exec.Cmd, output) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), "FNWIRE_TEST_RECEIVER="+name, fnlib.EnvURL+"="+w.url, fnlib.EnvJobKey+"="+w.key.Encode())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := output{bufio.NewScanner(out)}
	lines.expect(t, "joined")
	return cmd, lines
}

// output is what a process says, a line at a time.
type output struct{ *bufio.Scanner }

func (o output) expect(t *testing.T, want string) {
	t.Helper()
	if !o.Scan() || !strings.HasPrefix(o.Text(), want) {
		t.Fatalf("receiver says %q, want %q", o.Text(), want)
	}
}

// A relay dies: a stream over it goes on by the other relay.
func TestStreamMovesToAnotherRelay(t *testing.T) {
	streamMoves(t, 0)
}

// A relay is told to end: a stream over it has moved to the other relay before it ends.
func TestStreamLeavesRelayThatDrains(t *testing.T) {
	streamMoves(t, 3*time.Second)
}

func streamMoves(t *testing.T, drain time.Duration) {
	t.Helper()
	w := newWorld(t, 0)
	w.drain = drain
	w.startRelay(t, "r1", loopbackAny)
	w.startRelay(t, "r2", loopbackAny)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	c1, c2, err := pipe(t.Context(), a, l, "b", fnlib.RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	both := func(s string) error {
		for _, d := range [][2]net.Conn{{c1, c2}, {c2, c1}} {
			if _, err := d[0].Write([]byte(s)); err != nil {
				return err
			}
			if _, err := io.ReadFull(d[1], make([]byte, len(s))); err != nil {
				return err
			}
		}
		return nil
	}
	if err := both("before"); err != nil {
		t.Fatal(err)
	}
	before := c1.(*fnlib.Conn).Link().Remote
	old := w.rels[before[1]-'1']
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		old.stop()
	}()
	for drain > 0 && c1.(*fnlib.Conn).Link().Remote == before {
		select {
		case <-ended:
			t.Fatalf("still over %s when it ended", before)
		case <-time.After(time.Millisecond):
		}
		if err := both("meanwhile"); err != nil {
			t.Fatal(err)
		}
	}
	<-ended
	if err := both("after"); err != nil {
		t.Fatal(err)
	}
	if now := c1.(*fnlib.Conn).Link().Remote; now == before {
		t.Errorf("still over %s, which is down", now)
	}
}
