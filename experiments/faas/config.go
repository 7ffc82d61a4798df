package faas

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// Limits on payloads, in bytes.
const (
	MaxSync  = 6 << 20 // of invocations that are waited for
	MaxAsync = 1 << 20 // of events that are queued
)

const (
	defaultIdle = 10 * time.Minute
	maxTimeout  = 15 * time.Minute
	minMemory   = 128 // MB
	maxMemory   = 10240
)

// Config says what a platform has. Lab, Hosts and Functions are required.
type Config struct {
	Lab       *lab.Lab
	Hosts     []string // of the lab, for instances; nothing else should run there
	Functions []Function
	// Idle is how long an instance waits for an event until it is reclaimed; 0 is 10 minutes.
	Idle time.Duration
	// Lifetime is the mean of the exponential distribution from which the age is drawn at which an instance is reclaimed, as soon as
	// it waits; 0: they have no such age.
	Lifetime time.Duration
	Seed     uint64 // of ages, and of the choice among free hosts
	Async    Async
	LogDir   string       // keeps each instance's log, as FUNCTION/INSTANCE.log, up to 64 MiB; empty: none is kept
	Record   func(Record) // told of all that happens, one at a time; it must not call the platform. nil: nobody is
	Logger   *slog.Logger // nil discards
}

// Function is a user's function.
type Function struct {
	Name string // letters, digits, "-" and "_", at most 64
	Dir  string // holds the program, "bootstrap"
	Env  []string
	// MemoryMB is told to the function and billed; 0 is 128.
	MemoryMB int
	Timeout  time.Duration // of an invocation, at most 15 minutes; 0 is 3 s
	// Concurrency is how many events it may have at once; 0: as many as there are hosts.
	Concurrency int
	NAT         lab.Kind // of the hosts that instances are started on; empty: any
	NoFreeze    bool     // instances go on running while they wait
}

// function is a Function of a platform.
type function struct {
	Function
	active int    // hosts taken for its events; guarded by Platform.mu
	totals Totals // guarded by Platform.recordMu
}

func (c *Config) check() error {
	switch {
	case c.Lab == nil:
		return errors.New("no lab")
	case len(c.Hosts) == 0:
		return errors.New("no hosts for instances")
	case c.Idle < 0 || c.Lifetime < 0:
		return errors.New("a time for instances that is negative")
	}
	c.Idle = cmp.Or(c.Idle, defaultIdle)
	c.Async = c.Async.filled()
	if c.Record == nil {
		c.Record = func(Record) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// pool returns the hosts as slots.
func (c *Config) pool() ([]*slot, error) {
	all := c.Lab.Hosts()
	var slots []*slot
	for n, name := range c.Hosts {
		i := slices.IndexFunc(all, func(h lab.HostInfo) bool { return h.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("the lab has no host %q", name)
		}
		if slices.Contains(c.Hosts[:n], name) {
			return nil, fmt.Errorf("host %s is given twice", name)
		}
		slots = append(slots, &slot{host: all[i], changed: make(chan struct{})})
	}
	return slots, nil
}

// check fills f in, or says what is wrong with it.
func (f *Function) check(pool []*slot) error {
	if err := lab.CheckName(f.Name); err != nil {
		return fmt.Errorf("function: %w", err)
	}
	f.MemoryMB, f.Timeout = cmp.Or(f.MemoryMB, minMemory), cmp.Or(f.Timeout, lambdaapi.DefaultTimeout)
	var err error
	switch {
	case f.MemoryMB < minMemory || f.MemoryMB > maxMemory:
		err = fmt.Errorf("%d MB of memory: want %d to %d", f.MemoryMB, minMemory, maxMemory)
	case f.Timeout < 0 || f.Timeout > maxTimeout:
		err = fmt.Errorf("timeout %v: want at most %v", f.Timeout, maxTimeout)
	case f.Concurrency < 0:
		err = errors.New("a concurrency that is negative")
	case f.NAT != "":
		f.NAT, err = lab.ParseKind(string(f.NAT))
		if err == nil && !slices.ContainsFunc(pool, func(s *slot) bool { return s.host.NAT == f.NAT }) {
			err = fmt.Errorf("no host of the pool has a NAT of kind %s", f.NAT)
		}
	}
	if err == nil {
		err = f.find()
	}
	if err != nil {
		return fmt.Errorf("function %s: %w", f.Name, err)
	}
	return nil
}

// find looks for the program, and makes Dir absolute.
func (f *Function) find() (err error) {
	if f.Dir, err = filepath.Abs(f.Dir); err != nil {
		return err
	}
	info, err := os.Stat(f.program())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no program %s: build one with: GOOS=linux go build -o %s", f.program(), f.program())
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not a program: make it one with: chmod +x %s", f.program(), f.program())
	}
	return nil
}

func (f *Function) program() string { return filepath.Join(f.Dir, "bootstrap") }

func (f *Function) lambda() lambdaapi.Function {
	return lambdaapi.Function{Name: f.Name, MemoryMB: f.MemoryMB, Timeout: f.Timeout}
}
