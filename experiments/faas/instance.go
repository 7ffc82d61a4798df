package faas

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// runtimeAPI is where an instance finds the Runtime API, as on Lambda.
const runtimeAPI = "127.0.0.1:9001"

// tempBytes is how much its /tmp holds, which is Lambda's default.
const tempBytes = 512 << 20

// instance is a running function on a host of the pool.
type instance struct {
	id    string
	fn    *function
	slot  *slot
	run   *lambdaapi.Instance
	proc  *lab.Proc
	out   *output
	began time.Time
	gone  chan struct{} // closed when the host is free again

	maxRSS int64 // in bytes; only for who records an event, and after open

	// Guarded by Platform.mu.
	state    state
	why      string // it ends
	used     time.Time
	served   int
	doomed   string      // why it is to end as soon as it waits
	idle     *time.Timer // ends it, while it waits
	lifetime *time.Timer
	open     sync.WaitGroup // of events that are not recorded yet
}

// start starts an instance on a slot, which has none and which the caller has taken, for an event.
func (p *Platform) start(s *slot, f *function) (*instance, error) {
	i := &instance{id: lambdaapi.NewInstanceID(), fn: f, slot: s, began: time.Now(), gone: make(chan struct{})}
	if err := p.launch(i); err != nil {
		return nil, fmt.Errorf("faas: start %s on %s: %w", f.Name, s.host.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.inst = i
	i.use()
	if mean := p.cfg.Lifetime; mean > 0 {
		i.lifetime = time.AfterFunc(time.Duration(p.rand.ExpFloat64()*float64(mean)), func() { p.expire(i, WhyAge, idle, settling, busy) })
	}
	p.wg.Go(func() { p.watch(i) })
	if p.closed {
		p.end(i, WhyClosed)
	}
	return i, nil
}

func (p *Platform) launch(i *instance) (err error) {
	file := ""
	if p.cfg.LogDir != "" {
		file = filepath.Join(p.cfg.LogDir, i.fn.Name, i.id+".log")
	}
	if i.out, err = newOutput(file, i.fn.lambda()); err != nil {
		return err
	}
	var l net.Listener
	host := i.slot.host.Name
	err = p.cfg.Lab.Do(host, func() (err error) { l, err = net.Listen("tcp4", runtimeAPI); return err })
	if err == nil {
		i.run, err = lambdaapi.Start(lambdaapi.Config{
			ID: i.id, Command: []string{i.fn.program()}, Dir: i.fn.Dir, Env: i.fn.Env, Function: i.fn.lambda(), Listener: l,
			Start: func(cmd *exec.Cmd) (lambdaapi.Process, error) {
				i.proc, err = p.cfg.Lab.StartWithTemp(context.Background(), host, cmd, tempBytes)
				return i.proc, err
			},
			NoFreeze: i.fn.NoFreeze, Output: i.out.w, Logger: p.cfg.Logger,
		})
	}
	if err != nil {
		i.out.close()
	}
	return err
}

// use notes that the instance has an event. It runs under Platform.mu.
func (i *instance) use() {
	i.state = busy
	i.open.Add(1)
	if i.idle != nil {
		i.idle.Stop()
	}
}

// weigh looks how much memory the process has had so far.
func (i *instance) weigh() { i.maxRSS = max(i.maxRSS, maxRSS(i.proc.Pid())) }

// settle notes that the instance waits for an event, or that it has ended.
func (p *Platform) settle(i *instance, waits bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case i.state == ending:
		return
	case !waits:
		i.state = ending
	case i.doomed != "":
		p.end(i, i.doomed)
	default:
		i.state = idle
		i.idle = time.AfterFunc(p.cfg.Idle, func() { p.expire(i, WhyIdle, idle) })
	}
	i.slot.tell()
}

// end has the instance end, unless it does already. It runs under Platform.mu.
func (p *Platform) end(i *instance, why string) {
	if i.state == ending {
		return
	}
	i.state, i.why = ending, why
	i.slot.tell()
	p.wg.Go(func() { _ = i.run.Shutdown(context.Background()) }) // which takes Grace at most
}

// expire ends the instance, as soon as it waits, if it is in one of the states.
func (p *Platform) expire(i *instance, why string, in ...state) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed || !slices.Contains(in, i.state):
		return false
	case i.state == idle && !i.slot.taken:
		p.end(i, why)
	case why == WhyIdle: // an event has just come
		return false
	default:
		i.doomed = why
	}
	return true
}

// Reclaim ends the instances of a function that wait or have answered, those of all if the name is empty, and returns how many, when they
// are gone.
func (p *Platform) Reclaim(ctx context.Context, function string) (int, error) {
	if function != "" && p.functions[function] == nil {
		return 0, fmt.Errorf("%w: %s", ErrNoFunction, function)
	}
	var ends []*instance
	p.mu.Lock()
	for _, s := range p.slots {
		if i := s.inst; i != nil && (function == "" || i.fn.Name == function) {
			ends = append(ends, i)
		}
	}
	p.mu.Unlock()
	n := 0
	for _, i := range ends {
		if p.expire(i, WhyTold, idle, settling) {
			ends[n] = i
			n++
		}
	}
	for _, i := range ends[:n] {
		select {
		case <-i.gone:
		case <-ctx.Done():
			return n, fmt.Errorf("faas: reclaim: %w", ctx.Err())
		}
	}
	return n, nil
}

// watch waits for the end of the instance, and lets its host have another.
func (p *Platform) watch(i *instance) {
	<-i.run.Done()
	p.mu.Lock()
	i.state = ending
	for _, t := range []*time.Timer{i.idle, i.lifetime} {
		if t != nil {
			t.Stop()
		}
	}
	i.slot.tell()
	p.mu.Unlock()
	i.open.Wait()
	if err := p.cfg.Lab.Sweep(i.slot.host.Name); err != nil && !errors.Is(err, lab.ErrClosed) { // of what it had started
		p.cfg.Logger.Warn("faas: the instance left something behind", "instance", i.id, "error", err)
	}
	i.out.close()
	u := i.run.Usage()
	p.mu.Lock()
	end := &Instance{
		ID: i.id, Function: i.fn.Name, Host: i.slot.host.Name, NAT: i.slot.host.NAT, Started: i.began, Ended: time.Now(),
		Why: i.why, Invocations: i.served, InitMS: ms(u.Init), BusyMS: ms(u.Busy), FrozenMS: ms(u.Frozen), Freezes: u.Freezes, MaxRSS: i.maxRSS,
	}
	p.mu.Unlock()
	if end.Why == "" {
		end.Why = WhyExited
	}
	p.record(Record{Instance: end})
	p.mu.Lock()
	defer p.mu.Unlock()
	i.slot.inst = nil
	i.slot.tell()
	close(i.gone)
}
