package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/cli"
)

// serveTCP serves connections on loopback until the test ends.
func serveTCP(t *testing.T, listen string, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { _ = c.Close() })
			conns.Go(func() {
				handle(c.(*net.TCPConn))
				stop()
				_ = c.Close() // mostly handle has
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		conns.Wait()
	})
	return l.Addr().String()
}

// echo sends back what comes, and ends when the peer has ended.
func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

// events are those that a tunnel has printed until now.
func (p *process) events() []tunnelEvent {
	p.t.Helper()
	text := p.out.String()
	return lines[tunnelEvent](p.t, text[:strings.LastIndexByte(text, '\n')+1])
}

// startTunnel runs expose or forward and returns when it is ready.
func (env environment) startTunnel(t *testing.T, args ...string) (*process, tunnelEvent) {
	t.Helper()
	p := env.start(t, nil, append(args, "--json")...)
	p.await(&p.out, "\n")
	ready := p.events()[0]
	if ready.Event != "ready" {
		t.Fatalf("%+v", ready)
	}
	return p, ready
}

// tunnelTo puts a tunnel before a TCP server and returns its near end.
func (env environment) tunnelTo(t *testing.T, target string, args ...string) (addr string, expose, forward *process) {
	t.Helper()
	expose, _ = env.startTunnel(t, "expose", "--name", "b", "--service", "s", target)
	forward, ready := env.startTunnel(t, append([]string{"forward", "--name", "a", "--listen", "127.0.0.1:0", "--to", "b:s"}, args...)...)
	return ready.Listen, expose, forward
}

// finish interrupts tunnels, which must end well.
func finish(ps ...*process) {
	for _, p := range ps {
		p.t.Helper()
		p.interrupt()
		p.want(cli.ExitOK)
		if p.err.String() != "" {
			p.t.Errorf("%s says %q", p.args[0], &p.err)
		}
	}
}

// dialTCP connects; nothing on the connection waits longer than a failing test does.
func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() }) // mostly the test has
	return c.(*net.TCPConn)
}

// wantReset fails the test unless the connection ends with a reset.
func wantReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection ends with %v, want a reset", err)
	}
}

// wantEcho sends bytes both ways, and to the end if last.
func wantEcho(c *net.TCPConn, text []byte, last bool) error {
	if _, err := c.Write(text); err != nil {
		return err
	}
	if last {
		if err := c.CloseWrite(); err != nil {
			return err
		}
		got, err := io.ReadAll(c)
		if err == nil && !bytes.Equal(got, text) {
			err = fmt.Errorf("%d bytes came back of %d, or others", len(got), len(text))
		}
		return errors.Join(err, c.Close())
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return errors.New("other bytes came back")
	}
	return nil
}

// TestTunnelHalfClose holds that each direction ends by itself, whichever is first, and what is reported.
func TestTunnelHalfClose(t *testing.T) {
	env, _ := startDev(t)
	// It ends its side first, and says at last on the terminal what it got.
	got := make(chan string, 1)
	server := serveTCP(t, "127.0.0.1:0", func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "hello")
		_ = c.CloseWrite()
		text, err := io.ReadAll(c)
		got <- fmt.Sprint(string(text), err)
	})
	addr, expose, forward := env.tunnelTo(t, server)
	c := dialTCP(t, addr)
	if text, err := io.ReadAll(c); string(text) != "hello" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	_, _ = io.WriteString(c, "after the end")
	_ = c.CloseWrite()
	if text := <-got; text != "after the end<nil>" {
		t.Errorf("the server got %q", text)
	}
	forward.await(&forward.out, `"close"`)
	expose.await(&expose.out, `"close"`)
	finish(forward, expose)

	addr, expose, forward = env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", echo), "--path", "relay")
	if err := wantEcho(dialTCP(t, addr), pattern(3<<20), true); err != nil {
		t.Error(err)
	}
	forward.await(&forward.out, `"close"`)
	expose.await(&expose.out, `"close"`)
	finish(forward, expose)
	for _, p := range []*process{expose, forward} {
		all := p.events()
		if len(all) != 3 || all[1].Event != "open" || all[1].Conn != 1 || all[1].From == "" {
			t.Fatalf("%s: %+v", p.args[0], all)
		}
		e := all[2]
		if e.Event != "close" || *e.Sent != 3<<20 || *e.Received != 3<<20 || *e.Seconds <= 0 || e.Path != "relay" || e.Error != "" {
			t.Errorf("%s: %+v", p.args[0], e)
		}
		if p == expose && e.From != "a" {
			t.Errorf("expose: from %s", e.From)
		}
	}
}

// bulkBytes go each way in TestTunnelBulk.
func bulkBytes() int64 {
	if testing.Short() {
		return 16 << 20
	}
	return 256 << 20
}

// stream is endless and the same for the same seed.
func stream(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// pour writes n bytes of a stream to c, ends that direction and returns their digest.
func pour(c *net.TCPConn, seed byte, n int64) ([]byte, error) {
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, io.TeeReader(io.LimitReader(stream(seed), n), h), make([]byte, 256<<10)); err != nil {
		return nil, err
	}
	return h.Sum(nil), c.CloseWrite()
}

func digestOf(r io.Reader) ([]byte, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ hash.Hash }{h}, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return h.Sum(nil), n, err
}

// TestTunnelBulk sends 256 MiB both ways at the same time.
func TestTunnelBulk(t *testing.T) {
	env, _ := startDev(t)
	type result struct {
		wrote, read []byte
		n           int64
		err         error
	}
	bulk := func(c *net.TCPConn, seed byte) (r result) {
		var both errgroup.Group
		both.Go(func() (err error) { r.wrote, err = pour(c, seed, bulkBytes()); return err })
		both.Go(func() (err error) { r.read, r.n, err = digestOf(c); return err })
		r.err = both.Wait()
		return r
	}
	served := make(chan result, 1)
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", func(c *net.TCPConn) { served <- bulk(c, 1) }))
	c := dialTCP(t, addr)
	_ = c.SetDeadline(time.Now().Add(4 * patience)) // under the race detector
	began := time.Now()
	near := bulk(c, 2)
	far := <-served
	took := time.Since(began)
	if near.err != nil || far.err != nil || near.n != bulkBytes() || far.n != bulkBytes() ||
		!bytes.Equal(near.wrote, far.read) || !bytes.Equal(far.wrote, near.read) {
		t.Errorf("near %+v, far %+v", near, far)
	}
	t.Logf("%s each way in %v%s", size(bulkBytes()), took.Round(time.Millisecond), rate(2*bulkBytes(), took))
	forward.await(&forward.out, `"close"`)
	expose.await(&expose.out, `"close"`)
	finish(forward, expose)
}

// TestTunnelManyConns has 200 connections at the same time, all of them open before one ends.
func TestTunnelManyConns(t *testing.T) {
	const many = 200
	env, _ := startDev(t)
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", echo))
	conns := make([]*net.TCPConn, many)
	var opening errgroup.Group
	for i := range conns {
		conns[i] = dialTCP(t, addr)
		opening.Go(func() error { return wantEcho(conns[i], binary.BigEndian.AppendUint32(nil, uint32(i)), false) })
	}
	if err := opening.Wait(); err != nil {
		t.Fatal(err)
	}
	var ending errgroup.Group
	for i, c := range conns {
		ending.Go(func() error { return wantEcho(c, bytes.Repeat([]byte{byte(i)}, 64<<10+i), true) })
	}
	if err := ending.Wait(); err != nil {
		t.Error(err)
	}
	for _, p := range []*process{forward, expose} {
		for begin := time.Now(); strings.Count(p.out.String(), `"close"`) < many && time.Since(begin) < patience; {
			if err := pause(t.Context(), 5*time.Millisecond); err != nil {
				t.Fatal(err)
			}
		}
	}
	finish(forward, expose)
	for _, p := range []*process{forward, expose} {
		var sent, closed int64
		for _, e := range p.events() {
			if e.Event == "close" {
				closed++
				sent += *e.Sent
				if e.Error != "" || *e.Sent != *e.Received {
					t.Errorf("%s: %+v", p.args[0], e)
				}
			}
		}
		if want := int64(many*(4+64<<10) + many*(many-1)/2); closed != many || sent != want {
			t.Errorf("%s: %d connections with %d bytes, want %d with %d", p.args[0], closed, sent, many, want)
		}
	}
}

// TestTunnelRefused holds that a connection that cannot be had is reset, that the reason is told, and
// that the commands go on.
func TestTunnelRefused(t *testing.T) {
	env, _ := startDev(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := l.Addr().String()
	_ = l.Close() // nobody listens there now
	addr, expose, forward := env.tunnelTo(t, target)
	wantReset(t, dialTCP(t, addr))
	forward.await(&forward.out, `"error":"the other end cannot reach its target"`)
	expose.await(&expose.out, "refused")

	serveTCP(t, target, echo)
	if err := wantEcho(dialTCP(t, addr), []byte("now"), true); err != nil {
		t.Error(err)
	}
	forward.await(&forward.out, `"conn":2,"from":`)
	finish(expose)

	text := env.start(t, nil, "expose", "--name", "b", "--service", "other", target)
	text.await(&text.out, "exposing "+target+" as b:other\n")
	wantReset(t, dialTCP(t, addr))
	forward.await(&forward.out, "does not listen")
	finish(text, forward)

	// For people: one line on stderr for each connection, none for the others.
	text = env.start(t, nil, "forward", "--name", "a", "--listen", "127.0.0.1:0", "--to", "nobody", "--dial-timeout", "300ms")
	text.await(&text.out, "\n")
	near := strings.Fields(text.out.String())[1]
	if got := text.out.String(); got != "forwarding "+near+" to nobody:default\n" {
		t.Errorf("%q", got)
	}
	wantReset(t, dialTCP(t, near))
	text.await(&text.err, "fnwire: connection 1 from 127.0.0.1:")
	text.interrupt()
	text.want(cli.ExitOK)
	if got := text.err.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "nobody") {
		t.Errorf("%q", got)
	}
}

// TestTunnelReset holds that a reset at one end is a reset at the other, both ways.
func TestTunnelReset(t *testing.T) {
	env, _ := startDev(t)
	accepted := make(chan *net.TCPConn, 1)
	done := make(chan struct{})
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", func(c *net.TCPConn) {
		_, _ = c.Write([]byte{'x'})
		accepted <- c
		<-done
	}))
	open := func() (c, far *net.TCPConn) {
		c = dialTCP(t, addr)
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return c, <-accepted
	}
	c, far := open()
	resetTCP(far)
	wantReset(t, c)
	c, far = open()
	resetTCP(c)
	wantReset(t, far)
	close(done)
	for _, p := range []*process{forward, expose} {
		p.await(&p.out, "reset by the other end")
		p.await(&p.out, "connection reset by peer")
	}
	finish(forward, expose)
}

// TestTunnelInterrupt holds that Ctrl-C at one end resets what is open at both, soon, and that the other end goes on.
func TestTunnelInterrupt(t *testing.T) {
	env, _ := startDev(t)
	server := serveTCP(t, "127.0.0.1:0", echo)
	addr, expose, forward := env.tunnelTo(t, server)
	open := func() *net.TCPConn {
		c := dialTCP(t, addr)
		if err := wantEcho(c, []byte("x"), false); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := open()
	began := time.Now()
	finish(expose)
	wantReset(t, c)
	expose, _ = env.startTunnel(t, "expose", "--name", "b", "--service", "s", server)
	c = open()
	finish(forward)
	wantReset(t, c)
	expose.await(&expose.out, `"error"`)
	finish(expose)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
}

// TestTunnelPeerKilled holds that connections to a peer that is gone without a word are reset, and that the
// tunnel works again when somebody else takes its name.
func TestTunnelPeerKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for QUIC's idle timeout")
	}
	env, _ := startDev(t)
	server := serveTCP(t, "127.0.0.1:0", echo)
	addr, expose, forward := env.tunnelTo(t, server)
	c := dialTCP(t, addr)
	if err := wantEcho(c, []byte("x"), false); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := expose.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	wantReset(t, c)
	t.Logf("noticed after %v", time.Since(began).Round(time.Millisecond))
	expose, _ = env.startTunnel(t, "expose", "--name", "b", "--service", "s", server)
	if err := wantEcho(dialTCP(t, addr), []byte("again"), true); err != nil {
		t.Error(err)
	}
	finish(forward, expose)
}

// TestTunnelBackPressure holds that a reader that does not read stops the writer at the other end, and that
// nothing is lost when it goes on.
func TestTunnelBackPressure(t *testing.T) {
	env, _ := startDev(t)
	read := make(chan struct{})
	type result struct {
		digest []byte
		n      int64
		err    error
	}
	served := make(chan result, 1)
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", func(c *net.TCPConn) {
		<-read
		var r result
		r.digest, r.n, r.err = digestOf(c)
		served <- r
	}))
	c := dialTCP(t, addr)
	h := sha256.New()
	src, buf := stream(3), make([]byte, 256<<10)
	var total int64
	for {
		_, _ = io.ReadFull(src, buf)
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		n, err := c.Write(buf)
		total += int64(n)
		h.Write(buf[:n])
		if err != nil {
			if !isTimeout(err) {
				t.Fatal(err)
			}
			break
		}
		if total > 128<<20 {
			t.Fatalf("%s were taken, and nobody reads", size(total))
		}
	}
	t.Logf("%s were taken", size(total))
	close(read)
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	_ = c.CloseWrite()
	if r := <-served; r.err != nil || r.n != total || !bytes.Equal(r.digest, h.Sum(nil)) {
		t.Errorf("%d bytes of %d arrived, %v", r.n, total, r.err)
	}
	_ = c.Close()
	forward.await(&forward.out, `"close"`)
	expose.await(&expose.out, `"close"`)
	finish(forward, expose)
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// TestTunnelStalledReaders holds that connections whose readers do not read do not hold up others.
func TestTunnelStalledReaders(t *testing.T) {
	env, _ := startDev(t)
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", func(c *net.TCPConn) {
		first := make([]byte, 1)
		if _, err := io.ReadFull(c, first); err == nil && first[0] == 's' {
			<-t.Context().Done() // stalls
			return
		}
		_, _ = c.Write(first)
		echo(c)
	}))
	var filling errgroup.Group
	var stalled []*net.TCPConn
	for range 8 {
		c := dialTCP(t, addr)
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		stalled = append(stalled, c)
		filling.Go(func() error {
			if _, err := c.Write(bytes.Repeat([]byte("s"), 64<<20)); !isTimeout(err) {
				return fmt.Errorf("64 MiB were taken, and nobody reads: %w", err)
			}
			return nil
		})
	}
	if err := filling.Wait(); err != nil {
		t.Error(err)
	}
	if err := wantEcho(dialTCP(t, addr), pattern(8<<20), true); err != nil {
		t.Error(err)
	}
	for _, c := range stalled {
		resetTCP(c)
	}
	finish(forward, expose)
}

// TestTunnelTakenOver holds that of two of one name the older ends, and says why.
func TestTunnelTakenOver(t *testing.T) {
	env, _ := startDev(t)
	server := serveTCP(t, "127.0.0.1:0", echo)
	addr, older, forward := env.tunnelTo(t, server)
	newer, _ := env.startTunnel(t, "expose", "--name", "b", "--service", "s", server)
	older.want(cli.ExitFailed)
	if !strings.Contains(older.err.String(), "a newer instance has taken this name") {
		t.Errorf("%s", &older.err)
	}
	if err := wantEcho(dialTCP(t, addr), []byte("x"), true); err != nil {
		t.Error(err)
	}
	finish(forward, newer)
}

// TestTunnelBound holds that a connection beyond --max-conns waits until another has ended.
func TestTunnelBound(t *testing.T) {
	env, _ := startDev(t)
	addr, expose, forward := env.tunnelTo(t, serveTCP(t, "127.0.0.1:0", echo), "--max-conns", "2")
	var conns []*net.TCPConn
	for range 3 {
		c := dialTCP(t, addr) // the kernel takes it
		_, _ = io.WriteString(c, "x")
		conns = append(conns, c)
	}
	for _, c := range conns[:2] {
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	_ = conns[2].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := conns[2].Read(make([]byte, 1)); !isTimeout(err) {
		t.Errorf("a third connection is served: %d, %v", n, err)
	}
	_ = conns[0].Close()
	_ = conns[2].SetReadDeadline(time.Now().Add(patience))
	if _, err := io.ReadFull(conns[2], make([]byte, 1)); err != nil {
		t.Error(err)
	}
	for _, c := range conns[1:] {
		_ = c.Close()
	}
	forward.await(&forward.out, `"conn":3,"from":`)
	finish(forward, expose)
}

// TestTunnelIPv6 has both TCP ends on IPv6.
func TestTunnelIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on loopback: %v", err)
	}
	_ = l.Close() // was only tried
	env, _ := startDev(t)
	expose, ready := env.startTunnel(t, "expose", "--name", "b", serveTCP(t, "[::1]:0", echo))
	forward, near := env.startTunnel(t, "forward", "--name", "a", "--listen", "[::1]:0", "--to", "b:"+ready.Service)
	if !strings.HasPrefix(near.Listen, "[::1]:") || near.To != "b:"+ready.Service || !strings.HasSuffix(ready.To, "]:"+ready.Service) {
		t.Errorf("%+v, %+v", ready, near)
	}
	if err := wantEcho(dialTCP(t, near.Listen), pattern(100_000), true); err != nil {
		t.Error(err)
	}
	forward.await(&forward.out, `"close"`)
	finish(forward, expose)
}

// TestTunnelToFunction joins forward with a function that uses fnlib, which closes its connection as Go programs do,
// with bytes unread: what it wrote before arrives whole.
func TestTunnelToFunction(t *testing.T) {
	env, dev := startDev(t)
	node, err := fnlib.Join(testContext(t), fnlib.Config{URL: dev.URL, JobKey: dev.JobKey, Name: "b"})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	l, err := node.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	answer := pattern(1 << 20)
	go func() { // ends with the listener
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.ReadFull(c, make([]byte, 1))
		_, _ = c.Write(answer)
		_ = c.Close()
	}()
	forward, near := env.startTunnel(t, "forward", "--name", "a", "--listen", "127.0.0.1:0", "--to", "b", "--path", "direct")
	c := dialTCP(t, near.Listen)
	go func() {
		for { // until nobody takes it
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	got := make([]byte, len(answer))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, answer) {
		t.Errorf("%d bytes came, %v", n, err)
	}
	forward.await(&forward.out, `"close"`) // though the client goes on
	_ = c.Close()
	finish(forward)
	if e := forward.events(); e[len(e)-1].Error != "" || e[len(e)-1].Path != "direct" {
		t.Errorf("%+v", e[len(e)-1])
	}
}

// TestTunnelLeavesNothing runs both commands in this process and holds that nothing of them stays.
func TestTunnelLeavesNothing(t *testing.T) {
	_, dev := startDev(t)
	server := serveTCP(t, "127.0.0.1:0", echo)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var ended errgroup.Group
	start := func(args ...string) tunnelEvent {
		root := newRoot()
		pr, pw := io.Pipe()
		root.SetArgs(append(args, "--json", "--url", dev.URL, "--job-key", dev.JobKey))
		root.SetOut(pw)
		root.SetErr(io.Discard)
		ended.Go(func() error {
			err := root.ExecuteContext(ctx)
			_ = pw.Close() // never fails
			return err
		})
		var ready tunnelEvent
		d := json.NewDecoder(pr)
		if err := d.Decode(&ready); err != nil {
			t.Fatal(err)
		}
		ended.Go(func() error {
			_, err := io.Copy(io.Discard, pr)
			return err
		})
		return ready
	}
	start("expose", "--name", "b", "--service", "s", server)
	addr := start("forward", "--name", "a", "--listen", "127.0.0.1:0", "--to", "b:s").Listen
	for range 10 {
		if err := wantEcho(dialTCP(t, addr), pattern(100_000), true); err != nil {
			t.Error(err)
		}
	}
	open := dialTCP(t, addr)
	if err := wantEcho(open, []byte("x"), false); err != nil {
		t.Error(err)
	}
	cancel()
	if err := ended.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	_ = open.Close()
}
