package peer_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/onestream"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
	"github.com/fnwire/fnwire/experiments/peer/tlstcp"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/experiments/workload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a program in this process. stop ends it and returns its error.
func start() (c peer.Client, stop func() error) {
	p := peer.Program{Ends: map[string]func() peer.End{"quic": plainquic.New, "tls": tlstcp.New}}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := peer.Run(context.Background(), p, inR, outW)
		_ = outW.Close()
		_ = inR.Close()
		ended <- err
	}()
	c = peer.Client{Client: rpc.NewClient(inW, outR)}
	return c, func() error {
		_ = inW.Close()
		err := <-ended
		<-c.Done()
		return err
	}
}

// carry has one process send a state to another over the loopback interface.
func carry(ctx context.Context, kind string, src workload.Source) (peer.Sent, peer.Received, error) {
	a, stopA := start()
	b, stopB := start()
	sent, got, err := func() (sent peer.Sent, got peer.Received, err error) {
		args := peer.OpenArgs{Public: netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		saysA, err := a.Open(ctx, kind, args)
		if err != nil {
			return sent, got, err
		}
		args.Receives = true
		saysB, err := b.Open(ctx, kind, args)
		if err != nil {
			return sent, got, err
		}
		done := make(chan error, 1)
		go func() {
			err := b.Connect(ctx, saysA)
			if err == nil {
				got, err = b.Receive(ctx, onestream.CRC32C)
			}
			done <- err
		}()
		if err = a.Connect(ctx, saysB); err == nil {
			sent, err = a.Send(ctx, peer.StreamArgs{Check: onestream.CRC32C, Source: src})
		}
		return sent, got, errors.Join(err, <-done)
	}()
	return sent, got, errors.Join(err, stopA(), stopB())
}

func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	src, err := workload.Real(ctx, 3<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	sent, got, err := carry(ctx, "quic", src)
	fmt.Println(got.Bytes, sent.Digest == got.Digest, err)
	// Output: 3145728 true <nil>
}

func TestTLS(t *testing.T) {
	src, err := workload.Real(t.Context(), 3<<20)
	if err != nil {
		t.Fatal(err)
	}
	sent, got, err := carry(t.Context(), "tls", src)
	if b, herr := hex.DecodeString(got.Digest); err != nil || herr != nil || len(b) != 4 || sent.Digest != got.Digest || got.Bytes != 3<<20 {
		t.Errorf("%+v, %+v, %v", sent, got, err)
	}
}

func TestErrors(t *testing.T) {
	c, stop := start()
	for want, call := range map[string]func() error{
		"no server":      func() error { _, err := c.Serve(t.Context(), "x", netip.AddrPort{}); return err },
		"no end":         func() error { _, err := c.Open(t.Context(), "x", peer.OpenArgs{}); return err },
		"is not open":    func() error { return c.Connect(t.Context(), "{}") },
		"does not serve": func() error { _, err := c.Served(t.Context()); return err },
	} {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := c.Open(t.Context(), "quic", peer.OpenArgs{}); err != nil {
		t.Error(err)
	}
	if _, err := c.Open(t.Context(), "quic", peer.OpenArgs{}); err == nil {
		t.Error("opened twice")
	}
	if _, err := c.Direct(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "one way") {
		t.Errorf("got %v", err)
	}
	if err := c.Connect(t.Context(), "garbage"); err == nil {
		t.Error("connected to garbage")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Without source tree and without a program beside this one, the error says what to do.
func TestBuildSaysWhatIsMissing(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := peer.Build(t.Context(), "no-such-module")
	if !errors.Is(err, peer.ErrMissing) || !strings.Contains(err.Error(), "make peers") {
		t.Errorf("got %v", err)
	}
	// A program beside this one is taken as it is.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(filepath.Dir(self), "peer-made")
	if err := os.WriteFile(path, []byte("#!"), 0o755); err != nil {
		t.Skipf("no file beside the test: %v", err)
	}
	defer os.Remove(path)
	if got, err := peer.Build(t.Context(), "made"); err != nil || got != path {
		t.Errorf("got %s, %v", got, err)
	}
}

// Every module of Modules is there, with a go.mod of its own.
func TestModules(t *testing.T) {
	for _, m := range peer.Modules() {
		if _, err := os.Stat(filepath.Join(m, "go.mod")); err != nil {
			t.Error(err)
		}
	}
}
