package lab_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
	"github.com/fnwire/fnwire/experiments/wan"
)

// A line delays what crosses it, of every kind of host; what is between two hosts is the sum of their lines.
func TestLineDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	line := wan.Even(wan.Path{Delay: delay})
	l := labtest.New(t, lab.Host{Name: "p"}, lab.Host{Name: "open", Line: line}, lab.Host{Name: "nat", NAT: lab.PortRestricted, Line: line},
		lab.Host{Name: "ours", NAT: lab.AddressRestricted, Line: line}, lab.Host{Name: "narrow", NAT: "symmetric+mtu=1280", Line: line},
		lab.Host{Name: "shares", With: "ours"}, lab.Host{Name: "cgn", NAT: lab.CGN, Line: line}, lab.Host{Name: "plain", NAT: lab.FullCone})
	for server, extra := range map[string]time.Duration{"p": 0, "open": 2 * delay} {
		s := listen(t, l, server, 4000)
		for host, want := range map[string]time.Duration{"nat": 2 * delay, "ours": 2 * delay, "narrow": 2 * delay, "shares": 2 * delay, "cgn": 2 * delay, "plain": 0} {
			h := listen(t, l, host, 0)
			least := time.Hour
			for range 3 {
				began := time.Now()
				h.send(at(l, server, s), "ping")
				_, from, ok := s.recv(patience)
				if !ok {
					t.Fatalf("nothing from %s to %s", host, server)
				}
				s.send(from, "pong")
				h.want("pong")
				least = min(least, time.Since(began))
			}
			if want += extra; least < want-time.Millisecond || least > want+delay {
				t.Errorf("%s and %s: %v, want %v", host, server, least, want)
			}
		}
	}
	lines, _, err := l.Lines()
	if err != nil || len(lines) != 5 || lines["nat"].Up.Packets < 6 || lines["nat"].CPU <= 0 {
		t.Errorf("lines: %+v, %v", lines, err)
	}
}

// Batches of UDP cross a line that loses some of their packets: those that arrive are whole.
func TestLineCutsBatches(t *testing.T) {
	const seg, count, batches = 1400, 40, 50
	l := labtest.New(t, lab.Host{Name: "p"}, lab.Host{Name: "a", NAT: lab.PortRestricted,
		Line: wan.Even(wan.Path{Delay: time.Millisecond, Loss: 0.1, Burst: 2, Reorder: 0.1, Late: time.Millisecond})})
	p, a := listen(t, l, "p", 4000), listen(t, l, "a", 5000)
	p.control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	batch := make([]byte, seg*count)
	for i := range batches {
		for j := range count {
			copy(batch[j*seg:(j+1)*seg], bytes.Repeat([]byte{byte(i), byte(j)}, seg/2))
		}
		if _, _, err := a.WriteMsgUDPAddrPort(batch, segmentSize(seg), at(l, "p", p)); err != nil {
			t.Fatal(err)
		}
	}
	arrived, last, overtaken := 0, -1, 0
	for {
		msg, _, ok := p.recv(20 * moment)
		if !ok {
			break
		}
		if len(msg) != seg || msg != strings.Repeat(msg[:2], seg/2) {
			t.Fatalf("a packet of %d bytes, % x..., that nobody sent", len(msg), msg[:min(8, len(msg))])
		}
		n := int(msg[0])*count + int(msg[1])
		if n < last {
			overtaken++
		}
		arrived, last = arrived+1, n
	}
	lines, _, err := l.Lines()
	if err != nil {
		t.Fatal(err)
	}
	up := lines["a"].Up
	if up.Packets != batches*count || int64(arrived) != up.Fates[wan.InOrder]+up.Fates[wan.Late] || up.Fates[wan.Lost] == 0 || overtaken == 0 {
		t.Errorf("%d arrived, %d overtaken, of %+v", arrived, overtaken, up)
	}
}

// TCP, with the batches of its own, carries every byte over a bad line.
func TestLineTCP(t *testing.T) {
	bad := wan.Even(wan.Path{Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Loss: 0.005, Reorder: 0.01, Late: time.Millisecond, Rate: 200_000_000})
	l := labtest.New(t, lab.Host{Name: "p"}, lab.Host{Name: "a", NAT: lab.PortRestricted, Line: bad})
	var ln net.Listener
	if err := l.Do("p", func() (err error) { ln, err = net.Listen("tcp4", ":80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sent := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	accepted := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = c.Write(sent)
			err = errorsOf(err, c.Close())
		}
		accepted <- err
	}()
	var c net.Conn
	err := l.Do("a", func() (err error) {
		c, err = net.Dial("tcp4", netip.AddrPortFrom(l.Addr("p"), 80).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err := errorsOf(err, <-accepted); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
}

func errorsOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// The process that carries lines ends with the lab, and no device stays.
func TestLineEnds(t *testing.T) {
	l := labtest.New(t, lab.Host{Name: "a", NAT: lab.PortRestricted, Line: wan.Even(wan.Path{Delay: time.Millisecond})})
	pids := children(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if left := children(t); len(pids) == 0 || len(left) >= len(pids) {
		t.Errorf("children %v before, %v after", pids, left)
	}
	if _, _, err := l.Lines(); err == nil {
		t.Error("lines of a lab that is closed tell what they do")
	}
}

// children are the processes that this one has started, and has not seen the end of.
func children(t *testing.T) (pids []int) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + task.Name() + "/children")
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// Lines that cannot be, or that are somebody else's, are refused.
func TestLineChecks(t *testing.T) {
	bad := wan.Even(wan.Path{Loss: 2})
	good := wan.Even(wan.Path{Delay: 1})
	for _, hosts := range [][]lab.Host{
		{{Name: "a", Line: bad}},
		{{Name: "a", NAT: lab.FullCone, Line: good}, {Name: "b", With: "a", Line: good}},
	} {
		if err := (lab.Spec{Hosts: hosts}).Check(); err == nil {
			t.Errorf("%+v is taken", hosts)
		}
	}
}

// BenchmarkLine is what a line carries between a host and the internet, in batches and packet by packet. The sender keeps its CPU
// busy; what the receiver read is what counts.
func BenchmarkLine(b *testing.B) {
	const seg = 1400
	delay := wan.Path{Delay: time.Millisecond}
	lossy := wan.Path{Delay: time.Millisecond, Loss: 0.01, Burst: 3}
	for _, count := range []int{45, 1} {
		for _, c := range []struct {
			name string
			path wan.Path
		}{{"cable", wan.Path{}}, {"delay", delay}, {"loss", lossy}} {
			b.Run(fmt.Sprintf("%s/batches-of-%d", c.name, count), func(b *testing.B) {
				l := labtest.New(b, lab.Host{Name: "p"}, lab.Host{Name: "a", Line: wan.Even(c.path)})
				to, from := listen(b, l, "p", 4000), listen(b, l, "a", 5000)
				began := time.Now()
				pump(b, from, to, at(l, "p", to), make([]byte, seg*count), segmentSize(seg))
				took := time.Since(began).Seconds()
				lines, _, err := l.Lines()
				if err != nil {
					b.Fatal(err)
				}
				if up := lines["a"].Up; up.Packets > 0 {
					b.ReportMetric(float64(up.Packets)/took, "packets/s")
					b.ReportMetric(100*lines["a"].CPU.Seconds()/took, "%cpu")
					b.ReportMetric(float64(up.Overrun), "overrun")
					b.ReportMetric(float64(up.LateBy(0.99).Microseconds()), "us-late-p99")
				}
			})
		}
	}
}
