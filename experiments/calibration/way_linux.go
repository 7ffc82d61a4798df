package calibration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/lab"
)

const (
	pingBytes  = 64
	countBytes = 64
	blastBytes = 1400
	blastBatch = 20
	bufBytes   = 128 << 20 // of a socket: what arrives waits there until it is read
	patience   = 2 * time.Second
	quiet      = 300 * time.Millisecond // more than the machine has a packet be late
)

// way is from a socket of one host to that of another.
type way struct {
	lab      *lab.Lab
	host     string
	from, to *net.UDPConn
	addr     netip.AddrPort // of to, for from
	longest  time.Duration  // that a packet is on its way
}

// meet opens a socket on a host and on the public one, between which packets pass.
func meet(ctx context.Context, l *lab.Lab, host string, public lab.HostInfo) (up, down way, err error) {
	var a, p *net.UDPConn
	open := func(host string, c **net.UDPConn) error {
		return l.Do(host, func() (err error) {
			if *c, err = net.ListenUDP("udp4", nil); err != nil {
				return err
			}
			return prepare(*c)
		})
	}
	err = errors.Join(open(host, &a), open(public.Name, &p))
	if err != nil {
		return way{from: a, to: p}, down, errors.Join(err, way{from: a, to: p}.close())
	}
	up = way{lab: l, host: host, from: a, to: p, addr: netip.AddrPortFrom(public.Addr, uint16(p.LocalAddr().(*net.UDPAddr).Port))}
	down = way{lab: l, host: public.Name, from: p, to: a}
	for range 20 { // one may be lost
		if _, err = a.WriteToUDPAddrPort([]byte{0}, up.addr); err != nil {
			break
		}
		_ = p.SetReadDeadline(time.Now().Add(patience / 10))
		if _, down.addr, err = p.ReadFromUDPAddrPort(make([]byte, 1)); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return up, down, errors.Join(fmt.Errorf("nothing arrives: %w", err), up.close())
	}
	return up, down, nil
}

func (w way) close() (err error) {
	for _, c := range []*net.UDPConn{w.from, w.to} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return err
}

// prepare asks the kernel for the time of each packet, for batches, and for room.
func prepare(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	err2 := raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufBytes) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, bufBytes)
		}
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1), unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1))
	})
	return errors.Join(err, err2)
}

// arrival is one packet, or a batch of which all arrived at once.
type arrival struct {
	at    int64 // by the kernel, in ns of the time of day
	sent  int64 // by the sender, in the first 8 bytes
	bytes int
}

// run sends on a thread with a high priority, so that a busy machine does not hold it up, and takes what arrives until it is quiet.
func (w way) run(ctx context.Context, send func() error) ([]arrival, error) {
	var all []arrival
	var receiving sync.WaitGroup
	var failed error
	if err := w.to.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	receiving.Go(func() { all, failed = w.receive() })
	err := w.lab.Do(w.host, func() error {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20) // of this thread; where it is not allowed, the times are those of a busy machine
		return send()
	})
	pause(ctx, w.longest+quiet)
	err = errors.Join(err, w.to.SetReadDeadline(time.Now()))
	receiving.Wait()
	return all, errors.Join(err, failed, ctx.Err())
}

// receive takes what arrives until its deadline has passed and nothing is left.
func (w way) receive() ([]arrival, error) {
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	var all []arrival
	over := false
	for {
		n, oobn, _, _, err := w.to.ReadMsgUDPAddrPort(buf, oob)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded) && !over:
			over = true
			if err := w.to.SetReadDeadline(time.Now().Add(quiet)); err != nil {
				return all, err
			}
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return all, nil
		case err != nil:
			return all, err
		}
		if n < 8 {
			continue
		}
		all = append(all, arrival{stamp(oob[:oobn]), int64(binary.BigEndian.Uint64(buf)), n})
	}
}

func stamp(oob []byte) int64 {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS && len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})) {
			return (*unix.Timespec)(unsafe.Pointer(&m.Data[0])).Nano()
		}
	}
	return 0
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// delay is the median, of packets at a third of the rate at most.
func (w way) delay(ctx context.Context, rate int64) (time.Duration, error) {
	every := max(pingEvery, 3*sending(pingBytes, rate))
	all, err := w.run(ctx, func() error {
		b := make([]byte, pingBytes)
		for range pings {
			pause(ctx, every)
			binary.BigEndian.PutUint64(b, uint64(time.Now().UnixNano()))
			if _, err := w.from.WriteToUDPAddrPort(b, w.addr); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	took := make([]time.Duration, 0, len(all))
	for _, a := range all {
		took = append(took, time.Duration(a.at-a.sent))
	}
	if len(took) < pings/2 {
		return 0, fmt.Errorf("of %d packets %d arrive", pings, len(took))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// count sends n packets, so many a second.
func (w way) count(ctx context.Context, n, pace int) (sent, got int, err error) {
	all, err := w.run(ctx, func() error {
		b := make([]byte, countBytes)
		for began := time.Now(); sent < n && ctx.Err() == nil; {
			if float64(sent) > time.Since(began).Seconds()*float64(pace) {
				pause(ctx, pingEvery)
				continue
			}
			if _, err := w.from.WriteToUDPAddrPort(b, w.addr); err != nil {
				return err
			}
			sent++
		}
		return nil
	})
	for _, a := range all {
		got += a.bytes / countBytes
	}
	return sent, got, err
}

// rate sends more than the way takes, and returns how many bits of IP packets a second arrive: the upper quartile of short times, as
// even a sender with priority is held up now and then, and the way stands empty.
func (w way) rate(ctx context.Context, rate int64, jitter time.Duration) (float64, error) {
	window := max(window, windowLeast*sending(blastBytes, rate), jitterLeast*jitter)
	all, err := w.run(ctx, func() error {
		b, oob := make([]byte, blastBatch*blastBytes), segments(blastBytes)
		sent := 0
		for began := time.Now(); time.Since(began) < blastFor*window && ctx.Err() == nil; {
			if float64(8*sent) > time.Since(began).Seconds()*float64(rate)*blastOver {
				pause(ctx, pingEvery/10)
				continue
			}
			if _, _, err := w.from.WriteMsgUDPAddrPort(b, oob, w.addr); err != nil {
				return err
			}
			sent += len(b)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var windows []int
	for _, a := range all {
		i := int(time.Duration(a.at-all[0].at) / window)
		for len(windows) <= i {
			windows = append(windows, 0)
		}
		windows[i] += a.bytes / blastBytes * (blastBytes + udpHeaders)
	}
	if len(windows) < 5 {
		return 0, errors.New("too little arrives to tell the rate")
	}
	windows = windows[1 : len(windows)-1] // which are whole
	slices.Sort(windows)
	return float64(8*windows[len(windows)*3/4]) / window.Seconds(), nil
}

// segments is the control message that has the kernel cut a batch.
func segments(size uint16) []byte {
	oob := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	h.SetLen(unix.CmsgLen(2))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], size)
	return oob
}
