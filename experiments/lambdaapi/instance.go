package lambdaapi

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Instance is a running function. All methods are safe for concurrent use.
type Instance struct {
	cfg     Config
	proc    Process
	freezer Freezer
	server  *http.Server
	began   time.Time
	ready   chan struct{} // closed when init is over, well or badly
	done    chan struct{} // closed when the process is gone and so is everything that was made for it
	ending  sync.Once

	mu         sync.Mutex    // guards what follows
	changed    chan struct{} // closed and replaced when something below has changed
	inited     bool
	leaving    bool    // no event is taken any more
	ended      bool    // the process is gone
	why        error   // it ended, if it was not told to
	initError  *Result // what it said to /init/error
	failed     *Result // what every event gets, since init has failed
	polls      int     // requests for the next event that wait
	event      *event  // at hand: to be given, or given and its process has not asked for the next one yet
	last       *event  // the one before, while extensions are not done with it
	extensions map[string]*extension
	frozen     time.Time // since when; zero: it is not
	usage      Usage
}

// Usage is what an instance has used so far.
type Usage struct {
	Init        time.Duration // from the start until it first asked for an event, or failed to; 0 before
	Invocations int
	Busy        time.Duration // with an event, until it and its extensions asked for the next one
	Freezes     int
	Frozen      time.Duration
}

// Errors that callers branch on, with errors.Is.
var (
	// ErrEnded: the instance has ended, or is ending, and takes no event.
	ErrEnded = errors.New("lambdaapi: the instance has ended")
	// ErrTooLarge: the event is longer than MaxPayload.
	ErrTooLarge = fmt.Errorf("lambdaapi: event of more than %d bytes", MaxPayload)
)

// Start starts the function's process. It lives until it ends by itself, fails, or Shutdown.
func Start(cfg Config) (*Instance, error) {
	i, err := start(cfg)
	if err != nil {
		return nil, fmt.Errorf("lambdaapi: start: %w", err)
	}
	return i, nil
}

func start(cfg Config) (*Instance, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	l := cfg.Listener
	if l == nil {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	i := &Instance{
		cfg: cfg, began: time.Now(), freezer: cfg.Freezer,
		ready: make(chan struct{}), done: make(chan struct{}), changed: make(chan struct{}),
		extensions: make(map[string]*extension),
	}
	i.server = &http.Server{Handler: i.routes(), ReadHeaderTimeout: 10 * time.Second}
	cmd := exec.Command(cfg.Command[0], cfg.Command[1:]...)
	cmd.Dir, cmd.Env = cfg.Dir, cfg.environment(l.Addr().String())
	cmd.Stdout, cmd.Stderr = cfg.Output, cfg.Output
	cmd.WaitDelay = time.Second // its output may be held open by what has left its process group
	if i.freezer != nil {
		i.freezer.Attach(cmd)
	}
	proc, err := cfg.Start(cmd)
	if err != nil {
		err = errors.Join(err, l.Close())
		if i.freezer != nil {
			err = errors.Join(err, i.freezer.Close())
		}
		return nil, err
	}
	if i.proc = proc; i.freezer == nil {
		i.freezer = signals{proc}
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = i.server.Serve(l) // until it is closed
	}()
	late := time.AfterFunc(cfg.Init, i.initLate)
	go func() {
		err := proc.Wait()
		late.Stop()
		i.over(err)
		if err := i.freezer.Close(); err != nil {
			cfg.Logger.Error("lambdaapi: the instance left something behind", "error", err)
		}
		_ = i.server.Close() // the process is gone
		<-served
		close(i.done)
	}()
	return i, nil
}

// Ready is closed when the instance has asked for its first event, or has ended.
func (i *Instance) Ready() <-chan struct{} { return i.ready }

// Done is closed when the process is gone, and with it its API and what it had started.
func (i *Instance) Done() <-chan struct{} { return i.done }

// Err tells why the instance has ended: nil while it has not, or if it was told to.
func (i *Instance) Err() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.why
}

// Usage returns what was used so far.
func (i *Instance) Usage() Usage {
	i.mu.Lock()
	defer i.mu.Unlock()
	u := i.usage
	if !i.frozen.IsZero() {
		u.Frozen += time.Since(i.frozen)
	}
	for _, e := range []*event{i.event, i.last} {
		if e != nil && !e.given.IsZero() && !e.over {
			u.Busy += time.Since(e.given)
		}
	}
	return u
}

// WaitIdle waits until the instance is frozen, or waits for an event if Config.NoFreeze is set. The error is the context's, or matches
// ErrEnded.
func (i *Instance) WaitIdle(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for {
		switch {
		case i.leaving || i.ended:
			return ErrEnded
		case i.idle() && (i.cfg.NoFreeze || !i.frozen.IsZero()):
			return nil
		}
		if err := i.await(ctx); err != nil {
			return err
		}
	}
}

// Shutdown ends the instance as Lambda does: thawed, then SIGTERM and Config.Grace if it has registered an extension, and SIGKILL. It waits
// until everything is gone, or for ctx, and may be called more than once.
func (i *Instance) Shutdown(ctx context.Context) error {
	i.end(nil)
	select {
	case <-i.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("lambdaapi: shutdown: %w", ctx.Err())
	}
}

// end has the instance end, because of why.
func (i *Instance) end(why error) {
	i.ending.Do(func() {
		i.mu.Lock()
		i.leaving, i.why = true, why
		i.thaw()
		polite := len(i.extensions) > 0
		i.update()
		i.mu.Unlock()
		go i.terminate(polite)
	})
}

func (i *Instance) terminate(polite bool) {
	if polite && i.proc.Signal(sigTerm) == nil {
		timer := time.NewTimer(i.cfg.Grace)
		defer timer.Stop()
		select {
		case <-i.done:
			return
		case <-timer.C:
			i.cfg.Logger.Info("lambdaapi: killed, since it did not end in time", "grace", i.cfg.Grace)
		}
	}
	_ = i.proc.Signal(os.Kill) // an error says that it is gone
}

// over notes the end of the process.
func (i *Instance) over(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	told := i.leaving
	if !told {
		i.why = fmt.Errorf("lambdaapi: the process has ended by itself: %w", exitError(err))
	}
	i.leaving, i.ended = true, true
	if !i.frozen.IsZero() {
		i.usage.Frozen += time.Since(i.frozen)
		i.frozen = time.Time{}
	}
	said := "Runtime exited with error: " + exitError(err).Error()
	if !i.inited && i.failed == nil && !told {
		i.failed = i.initError
		if i.failed == nil {
			f := failure(ExitError, said)
			i.failed = &f
		}
	}
	i.initOver()
	if e := i.event; e != nil {
		if i.event = nil; i.failed != nil {
			e.end(*i.failed)
		}
		e.fail(ExitError, said)
		e.account(&i.usage)
	}
	if i.last != nil {
		i.last.account(&i.usage)
		i.last = nil
	}
	i.update()
}

func exitError(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}

// initOver runs under mu.
func (i *Instance) initOver() {
	if !i.inited {
		i.inited = true
		i.usage.Init = time.Since(i.began)
		close(i.ready)
	}
}

func (i *Instance) initLate() {
	msg := fmt.Sprintf("init took longer than %v", i.cfg.Init)
	i.mu.Lock()
	late := !i.inited && !i.leaving
	if late {
		f := failure(TimedOut, msg)
		if i.failed = &f; i.event != nil {
			i.event.fail(f.FunctionError, msg)
		}
	}
	i.mu.Unlock()
	if late {
		i.end(errors.New("lambdaapi: " + msg))
	}
}

// update tells who waits that something has changed, and freezes the instance if there is nothing to do. It runs under mu.
func (i *Instance) update() {
	if i.last != nil && i.rested() {
		i.last.account(&i.usage)
		i.last = nil
	}
	close(i.changed)
	i.changed = make(chan struct{})
	if !i.idle() || i.leaving || i.cfg.NoFreeze || !i.frozen.IsZero() {
		return
	}
	if err := i.freezer.Freeze(); err != nil {
		i.cfg.Logger.Warn("lambdaapi: not frozen", "error", err)
		return
	}
	i.frozen = time.Now()
	i.usage.Freezes++
	close(i.changed)
	i.changed = make(chan struct{})
}

// idle reports whether the process and its extensions all wait for an event, and there is none. It runs under mu.
func (i *Instance) idle() bool {
	return i.polls > 0 && i.event == nil && i.rested()
}

// rested reports whether all extensions wait for an event, and there is none. It runs under mu.
func (i *Instance) rested() bool {
	for _, x := range i.extensions {
		if !x.waiting || x.event != nil {
			return false
		}
	}
	return true
}

// thaw returns how long the instance was frozen. It runs under mu.
func (i *Instance) thaw() time.Duration {
	if i.frozen.IsZero() {
		return 0
	}
	if err := i.freezer.Thaw(); err != nil {
		i.cfg.Logger.Warn("lambdaapi: not thawed", "error", err)
	}
	frozen := time.Since(i.frozen)
	i.usage.Frozen += frozen
	i.frozen = time.Time{}
	return frozen
}

// await waits for a change. It runs under mu, which it gives up meanwhile.
func (i *Instance) await(ctx context.Context) error {
	changed := i.changed
	i.mu.Unlock()
	defer i.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NewInstanceID returns 32 random hexadecimal digits, as log streams have them.
func NewInstanceID() string { return newID() }

// newID returns 32 random hexadecimal digits.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
