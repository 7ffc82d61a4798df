package wan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// Cables are carried by a process of their own, the carrier, as it may then have the priority that exact times take, and no
// other work of the program that made the lab, or its garbage, is in their way. They speak JSON over a socket:
//
//	-> [{"line":{...},"seed":1}, ...]     <- {"error":""}                       once
//	-> {}                                 <- {"usage":[...],"real_time":true}   any number of times
//
// Files are those of the carrier's process: the socket at 3, and for each line its inside and its outside after that.

// Job is one line for a carrier.
type Job struct {
	Line Line   `json:"line"`
	Seed uint64 `json:"seed"`
	// Inside and Outside are what TAP returned.
	Inside, Outside *os.File `json:"-"`
}

const firstFile = 3

type answer struct {
	Error    string  `json:"error,omitempty"`
	Usage    []Usage `json:"usage,omitempty"`
	RealTime bool    `json:"real_time"`
}

// Carrier is the other end of the socket. Its methods may be called from several goroutines.
type Carrier struct {
	mu     sync.Mutex // guards the socket
	socket *os.File
	enc    *json.Encoder
	dec    *json.Decoder
}

// NewCarrier has a process carry lines: start must start one that calls Carry, with the given files from file descriptor 3 on. All but
// the socket are closed here when that has happened.
func NewCarrier(jobs []Job, start func(files []*os.File) error) (*Carrier, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	files := []*os.File{theirs}
	for _, j := range jobs {
		files = append(files, j.Inside, j.Outside)
	}
	err = start(files)
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	c := &Carrier{socket: ours, enc: json.NewEncoder(ours), dec: json.NewDecoder(ours)}
	if err == nil {
		_, err = c.ask(jobs)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wan: start the process that carries lines: %w", err), c.Close())
	}
	return c, nil
}

func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("wan: socket pair: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "carrier"), os.NewFile(uintptr(fds[1]), "lab"), nil
}

func (c *Carrier) ask(question any) (answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var a answer
	err := c.enc.Encode(question)
	if err == nil {
		err = c.dec.Decode(&a)
	}
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	return a, err
}

// Usage tells what the cables have done, in the order of the jobs, and whether they have real-time priority.
func (c *Carrier) Usage() (usage []Usage, realTime bool, err error) {
	a, err := c.ask(struct{}{})
	if err != nil {
		return nil, false, fmt.Errorf("wan: ask the process that carries lines: %w", err)
	}
	return a.Usage, a.RealTime, nil
}

// Close has the carrier end.
func (c *Carrier) Close() error { return c.socket.Close() }

// Carry is the life of a carrier. It returns when the other end of the socket has been closed.
func Carry() error {
	socket := os.NewFile(firstFile, "lab")
	defer socket.Close()
	enc, dec := json.NewEncoder(socket), json.NewDecoder(socket)
	var jobs []Job
	if err := dec.Decode(&jobs); err != nil {
		return fmt.Errorf("wan: %w", err)
	}
	realTime := urgent()
	var threads []*Cables
	defer func() {
		for _, c := range threads {
			_ = c.Close()
		}
	}()
	for i := range jobs {
		at := firstFile + 1 + 2*i
		jobs[i].Inside, jobs[i].Outside = inherited(at, "inside"), inherited(at+1, "outside")
	}
	n := min(len(jobs), runtime.NumCPU())
	runtime.GOMAXPROCS(n + runtime.NumCPU())
	for i := range n {
		c, err := NewCables(jobs[i*len(jobs)/n : (i+1)*len(jobs)/n])
		if err != nil {
			return errors.Join(err, enc.Encode(answer{Error: err.Error()}))
		}
		threads = append(threads, c)
	}
	if err := enc.Encode(answer{RealTime: realTime}); err != nil {
		return fmt.Errorf("wan: %w", err)
	}
	for {
		var question struct{}
		if err := dec.Decode(&question); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("wan: %w", err)
		}
		a := answer{RealTime: realTime}
		for i, c := range threads {
			for _, u := range c.Usage() {
				u.Thread = i
				a.Usage = append(a.Usage, u)
			}
		}
		if err := enc.Encode(a); err != nil {
			return fmt.Errorf("wan: %w", err)
		}
	}
}

// inherited is a file that the process has been given. It blocks until NewCables has it: else the runtime's poller would have it too, and wake up a thread
// of its own for each frame.
func inherited(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, false) // of one that is not open NewCables will tell
	return os.NewFile(uintptr(fd), name)
}

// urgent gives all threads of the process, and those they will start, real-time priority, or as much as they may have. They work
// for microseconds at a time, and the kernel leaves others a share.
func urgent() bool {
	const roundRobin = 2
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: roundRobin, Priority: 1}
	threads, err := os.ReadDir("/proc/self/task")
	all := err == nil
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil || unix.SchedSetAttr(id, attr, 0) != nil {
			all = false
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, -20)
		}
	}
	return all
}
