package wan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/wan"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// device is a pair of sockets that keep frames apart: one end is as the file of a TAP device, the other as its network.
func device(t *testing.T) (file, network *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	file, network = os.NewFile(uintptr(fds[0]), "device"), os.NewFile(uintptr(fds[1]), "network")
	t.Cleanup(func() { network.Close() })
	if err := network.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return file, network
}

// frame is one packet of some protocol, without a batch.
func frame(protocol uint16, text string) []byte {
	f := make([]byte, 10+14)
	binary.BigEndian.PutUint16(f[10+12:], protocol)
	return slices.Concat(f, []byte(text))
}

func send(t *testing.T, to *os.File, f []byte) {
	t.Helper()
	if _, err := to.Write(f); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, from *os.File, f []byte) {
	t.Helper()
	buf := make([]byte, 2000)
	if n, err := from.Read(buf); err != nil || !bytes.Equal(buf[:n], f) {
		t.Errorf("got % x, %v, want % x", buf[:n], err, f)
	}
}

// Frames take the delay of their direction and stay in order; ARP does not wait; all is counted, and nothing runs on after Close.
func TestCable(t *testing.T) {
	const delay = 50 * time.Millisecond
	inside, host := device(t)
	outside, internet := device(t)
	c, err := wan.NewCables([]wan.Job{{Line: wan.Line{Up: wan.Path{Delay: delay}}, Seed: 1, Inside: inside, Outside: outside}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	one, two, arp := frame(0x0800, "one"), frame(0x86dd, "two"), frame(0x0806, "who has")
	send(t, host, one)
	send(t, host, two)
	send(t, host, arp)
	want(t, internet, arp)
	want(t, internet, one)
	if took := time.Since(began); took < delay-time.Millisecond {
		t.Errorf("arrived after %v", took)
	}
	want(t, internet, two)
	send(t, internet, one)
	want(t, host, one)
	u := c.Usage()[0]
	if u.Up.Packets != 2 || u.Up.Bytes != 6 || u.Up.Fates[wan.InOrder] != 2 || u.Down.Packets != 1 || u.CPU <= 0 || u.Up.LateBy(1) == 0 {
		t.Errorf("%+v", u)
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if after := c.Usage()[0]; after.CPU < u.CPU || after.Up.Packets != 2 {
		t.Errorf("after Close %+v", after)
	}
}

// Cables on one thread do not mix their frames; one whose device has gone carries no more, the other does; and Close still works.
func TestCableDeviceGone(t *testing.T) {
	var jobs []wan.Job
	var hosts, internets [2]*os.File
	for i := range hosts {
		var inside, outside *os.File
		inside, hosts[i] = device(t)
		outside, internets[i] = device(t)
		jobs = append(jobs, wan.Job{Inside: inside, Outside: outside})
	}
	c, err := wan.NewCables(jobs)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second"} {
		for i := range hosts {
			if i == 0 && text == "second" {
				hosts[0].Close()
				continue
			}
			f := frame(0x0800, fmt.Sprint(text, i))
			send(t, hosts[i], f)
			want(t, internets[i], f)
			send(t, internets[i], f)
			want(t, hosts[i], f)
		}
	}
	if u := c.Usage(); len(u) != 2 || u[0].Up.Packets != 1 || u[0].Down.Packets != 1 || u[1].Up.Packets != 2 || u[1].Down.Packets != 2 {
		t.Errorf("%+v", u)
	}
	before := c.Usage()[0].CPU
	time.Sleep(200 * time.Millisecond)
	if took := c.Usage()[0].CPU - before; took > 50*time.Millisecond {
		t.Errorf("with a device that has gone the thread takes %v of 200 ms", took)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// What a job has in place of a device is told of.
func TestCableWithoutDevice(t *testing.T) {
	inside, _ := device(t)
	outside, err := os.CreateTemp(t.TempDir(), "outside")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wan.NewCables([]wan.Job{{Inside: inside, Outside: outside}}); err == nil || !strings.Contains(err.Error(), "of cable 0: operation not permitted") {
		t.Errorf("a regular file: %v", err)
	}
}

func TestCounts(t *testing.T) {
	var a, b wan.Counts
	if a.LateBy(0.5) != 0 {
		t.Error("no frames are late")
	}
	a.Packets, a.Overrun = 1, 1
	b = a
	b.Packets, b.Overrun, b.Lateness[0], b.Lateness[10] = 5, 2, 99, 1
	d := b.Sub(a)
	if d.Packets != 4 || d.Overrun != 1 || d.LateBy(0.5) != time.Microsecond || d.LateBy(0.999) != 1024*time.Microsecond {
		t.Errorf("%+v: %v, %v", d, d.LateBy(0.5), d.LateBy(0.999))
	}
}
