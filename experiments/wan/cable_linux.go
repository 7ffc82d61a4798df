package wan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tunPath   = "/dev/net/tun"
	turn      = 16                    // frames that are read from one side, or handed over from one queue, before the others have their turn
	nap       = 10 * time.Millisecond // the most that a thread sleeps: see epollWait
	threadCPU = 6                     // with the complement of a thread's ID times 8 before it: the clock of its CPU time

	learnStep = time.Microsecond / 2
	learnMost = 50 * time.Microsecond
	// hosts is what a packet takes to the cable and from it, by the network stacks of hosts and NATs, about. A delay that was measured in
	// a real network has that in it, so it is made up for.
	hosts = 10 * time.Microsecond
)

// TAP makes a TAP device in the network namespace of the thread, and returns the file to which frames that
// the device sends go. It takes batches.
func TAP(name string) (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("a line needs %s (in a container, pass the device in; for another user than root, type: chmod 666 %s): %w", tunPath, tunPath, err)
	}
	f := os.NewFile(uintptr(fd), tunPath)
	if _, err := epollWait(-1, make([]unix.EpollEvent, 1), nil); errors.Is(err, unix.ENOSYS) {
		return nil, errors.Join(fmt.Errorf("a line needs epoll_pwait2, which Linux has from 5.11 on: %w", err), f.Close())
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make TAP device %s: %w", name, err), f.Close())
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	// Kernels before 6.2 cut batches of UDP themselves.
	if err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6); err != nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set offload of TAP device %s: %w", name, err), f.Close())
	}
	return f, nil
}

// Cables carry frames between pairs of TAP devices, each as a Line says, on a thread of their own.
type Cables struct {
	began time.Time
	ways  []way // up and down of the first, up and down of the second...
	ends  []*os.File
	epoll int // of what is to be read: a way's number, and stopped
	stop  int // an eventfd
	done  chan struct{}
	close sync.Once

	// waking is how long the thread takes to wake up, and writing how long to hand a frame over: medians, followed in small steps. What
	// frames wait for the first when they come, and would again when they are due, and for the second, is made up for.
	// Both are the thread's own.
	waking, writing time.Duration

	mu     sync.Mutex // guards what follows, and ways; let go while the thread sleeps
	thread int
	cpu    time.Duration // once the thread has ended
}

// way is one direction of a cable.
type way struct {
	from, to      int // file descriptors
	link          *Link
	inOrder, late fifo
	held          int // bytes in them
	free          pool
	counts        Counts
}

const stopped = -1 // in place of a way's number

// NewCables starts cables between the host's side and the internet's of each job, whose files, of the kind that TAP makes, they own from here on. What is
// random is the same for the same seed. The thread keeps one of the runtime's processors while it sleeps, so there must be more (GOMAXPROCS) than Cables.
func NewCables(jobs []Job) (*Cables, error) {
	c := &Cables{began: time.Now(), epoll: -1, stop: -1, done: make(chan struct{})}
	for _, j := range jobs {
		c.ends = append(c.ends, j.Inside, j.Outside)
		in, out := int(j.Inside.Fd()), int(j.Outside.Fd())
		c.ways = append(c.ways,
			way{from: in, to: out, link: NewLink(j.Line.Up, 2*j.Seed, j.Seed)},
			way{from: out, to: in, link: NewLink(j.Line.Down, 2*j.Seed+1, j.Seed)})
	}
	if err := c.watch(); err != nil {
		return nil, errors.Join(fmt.Errorf("wan: %w", err), c.release())
	}
	started := make(chan struct{})
	go func() {
		defer close(c.done)
		runtime.LockOSThread() // to its end, and with it the thread's
		c.mu.Lock()
		defer c.mu.Unlock()
		c.thread = unix.Gettid()
		close(started)
		c.run()
		c.cpu, c.thread = c.used(), 0
	}()
	<-started
	return c, nil
}

// watch has the kernel tell what there is to read.
func (c *Cables) watch() (err error) {
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	if c.stop, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	add := func(fd, number int) error {
		return unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(number)})
	}
	if err = add(c.stop, stopped); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	for i, w := range c.ways {
		if err = unix.SetNonblock(w.from, true); err == nil {
			err = add(w.from, i)
		}
		if err != nil {
			return fmt.Errorf("read %s of cable %d: %w", c.ends[i].Name(), i/2, err)
		}
	}
	return nil
}

// Close ends the cables and with them the devices, and waits. It may be called more than once.
func (c *Cables) Close() error {
	var err error
	c.close.Do(func() {
		_, err = unix.Write(c.stop, binary.NativeEndian.AppendUint64(nil, 1))
		<-c.done
		err = errors.Join(err, c.release())
	})
	return err
}

func (c *Cables) release() error {
	var err error
	for _, f := range c.ends {
		err = errors.Join(err, f.Close())
	}
	for _, fd := range []int{c.epoll, c.stop} {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
	}
	return err
}

// Usage tells what the cables have done, in the order of the jobs.
func (c *Cables) Usage() []Usage {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, cpu := time.Now(), c.used()
	all := make([]Usage, 0, len(c.ways)/2)
	for i := 0; i < len(c.ways); i += 2 {
		all = append(all, Usage{At: now, CPU: cpu, Up: c.ways[i].counts, Down: c.ways[i+1].counts})
	}
	return all
}

func (c *Cables) used() time.Duration {
	if c.thread == 0 {
		return c.cpu
	}
	var t unix.Timespec
	if unix.ClockGettime(^int32(c.thread)<<3|threadCPU, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func (c *Cables) run() {
	buf, events := make([]byte, maxFrame), make([]unix.EpollEvent, 1+len(c.ways))
	for {
		next, ok := c.deliver()
		next -= c.waking + c.ahead()
		sleep := nap
		if ok {
			sleep = min(max(next-time.Since(c.began), 0), nap)
		}
		timeout := unix.NsecToTimespec(int64(sleep))
		c.mu.Unlock()
		n, err := epollWait(c.epoll, events, &timeout)
		c.mu.Lock()
		if err != nil {
			return
		}
		woke := time.Since(c.began)
		if n == 0 && 0 < sleep && sleep < nap && woke >= next {
			learn(&c.waking, woke-next)
		}
		for _, e := range events[:n] {
			if e.Fd == stopped {
				return
			}
			if w := &c.ways[e.Fd]; !w.read(buf, c.began, woke) { // a device that has gone has no more to tell
				_ = unix.EpollCtl(c.epoll, unix.EPOLL_CTL_DEL, w.from, nil)
			}
			c.deliver()
		}
	}
}

// epollWait waits as epoll_pwait2 does. The runtime does not know that the thread sleeps, and lets it have its processor: what wakes up at each frame
// has no use for another to take its place meanwhile, and a thread of the runtime that looked for those that sleep took a quarter of the CPU. To stop
// it (as garbage collection must, and the scheduler wants each 10 ms) the runtime sends signals, which end the wait, or waits for a nap to end if it has none.
func epollWait(epoll int, events []unix.EpollEvent, timeout *unix.Timespec) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)),
		uintptr(unsafe.Pointer(timeout)), 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}

// ahead is how much earlier than they are due frames are handed over, so that they arrive in time.
func (c *Cables) ahead() time.Duration { return c.waking + c.writing + hosts }

// learn moves a median towards what something took.
func learn(median *time.Duration, took time.Duration) {
	if took > *median {
		*median = min(*median+learnStep, learnMost)
	} else {
		*median = max(*median-learnStep, 0)
	}
}

// deliver hands over what has arrived, and says when the next will, or should have.
func (c *Cables) deliver() (next time.Duration, ok bool) {
	now := time.Since(c.began)
	for i := range c.ways {
		w := &c.ways[i]
		for _, f := range []*fifo{&w.inOrder, &w.late} {
			for left := turn; left > 0 && !f.empty() && f.first().at <= now+c.ahead(); left-- {
				p := f.pop()
				w.write(p.data)
				done := time.Since(c.began)
				learn(&c.writing, done-now)
				w.counts.Lateness[min(bits.Len64(uint64(max(done-p.at, 0)/time.Microsecond)), lateBuckets-1)]++
				w.held -= len(p.data)
				w.free.put(p.data)
				now = done
			}
			if !f.empty() && (!ok || f.first().at < next) {
				next, ok = f.first().at, true
			}
		}
	}
	return next, ok
}

// read takes what has come, the first frame no later than the thread woke; false means that the device has gone.
func (w *way) read(buf []byte, began time.Time, woke time.Duration) bool {
	for i := range turn {
		n, err := unix.Read(w.from, buf)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return true
		case err != nil || n == 0:
			return false
		}
		now := woke
		if i > 0 {
			now = time.Since(began)
		}
		w.take(now, buf[:n])
	}
	return true
}

// take decides the fate of the packets in a frame.
func (w *way) take(now time.Duration, frame []byte) {
	if neighbours(frame) {
		w.write(frame)
		return
	}
	b, ok := asBatch(frame)
	if !ok {
		if at, fate := w.send(now, len(frame)-vnetHeader-etherHeader); fate <= Late {
			copy(w.hold(at, fate, len(frame)), frame)
		}
		return
	}
	from, to := 0, 0 // packets that arrive together
	var first, last time.Duration
	flush := func() {
		if from < to {
			if dst := w.hold(last, InOrder, b.length(from, to)); dst != nil {
				b.slice(dst, from, to)
			}
		}
	}
	for i := range b.packets {
		at, fate := w.send(now, b.bytes(i))
		switch {
		case fate == InOrder && from < to && at-first <= w.link.path.gather():
			to, last = i+1, at
			continue
		case fate == InOrder:
			flush()
			from, to, first, last = i, i+1, at, at
			continue
		case fate == Late:
			if dst := w.hold(at, Late, b.length(i, i+1)); dst != nil {
				b.slice(dst, i, i+1)
			}
		}
		flush()
		from, to = 0, 0
	}
	flush()
}

func (w *way) send(now time.Duration, bytes int) (time.Duration, Fate) {
	at, fate := w.link.Send(now, bytes)
	w.counts.Packets++
	w.counts.Bytes += int64(bytes)
	w.counts.Fates[fate]++
	return at, fate
}

// hold returns where to put a frame that arrives at a time; nil if too much is held.
func (w *way) hold(at time.Duration, fate Fate, bytes int) []byte {
	if w.held+bytes > holdBytes {
		w.counts.Overrun++
		return nil
	}
	w.held += bytes
	p := parcel{at, w.free.get(bytes)}
	if fate == Late {
		w.late.push(p)
	} else {
		w.inOrder.push(p)
	}
	return p.data
}

// write hands a frame over. What the device does not take is lost, as on any wire.
func (w *way) write(frame []byte) { _, _ = unix.Write(w.to, frame) }
