package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/worker"
)

const (
	stopPatience    = 5 * time.Second
	stderrKeptBytes = 4 << 10
)

// Proc is a worker process.
type Proc struct {
	*worker.Client
	proc   *lab.Proc
	in     *os.File
	stderr *tail
	role   worker.Role
	host   string
	once   sync.Once
	err    error
}

// start starts a worker process on a host. It is up when it answers.
func (w *World) start(ctx context.Context, host string, role worker.Role) (*Proc, error) {
	return w.startCommand(ctx, host, w.cfg.Worker(role), role)
}

// Peer starts a process that speaks the protocol of package peer: path, or this program if that is empty.
func (w *World) Peer(ctx context.Context, host, path string) (peer.Client, *Proc, error) {
	cmd := w.cfg.Worker(worker.Peer)
	if path != "" {
		cmd = exec.Command(path)
	}
	p, err := w.startCommand(ctx, host, cmd, worker.Peer)
	if err != nil {
		return peer.Client{}, nil, err
	}
	return peer.Client{Client: p.Client.Client}, p, nil
}

// startCommand starts a process that speaks the protocol of package rpc.
func (w *World) startCommand(ctx context.Context, host string, cmd *exec.Cmd, role worker.Role) (*Proc, error) {
	p := &Proc{stderr: &tail{}, role: role, host: host}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("world: %w", err)
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("world: %w", err), inR.Close(), inW.Close())
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, p.stderr
	p.proc, err = w.lab.Start(ctx, host, cmd)
	_ = inR.Close()
	_ = outW.Close() // so that the end of the process shows as the end of its output
	if err != nil {
		_ = inW.Close()
		_ = outR.Close()
		return nil, fmt.Errorf("world: %s: %w", role, err)
	}
	p.in = inW
	p.Client = worker.NewClient(inW, outR)
	go func() {
		<-p.Done()
		_ = outR.Close()
	}()
	if _, err := p.Usage(ctx); err != nil {
		p.Kill()
		return nil, p.explain(fmt.Errorf("world: %w", err))
	}
	return p, nil
}

// Stop has the process leave in an orderly way and waits for its end; it is killed if it takes too long. The error
// tells if it ended badly.
func (p *Proc) Stop() error { return p.leave(func() { _ = p.in.Close() }) }

// Terminate is Stop by SIGTERM, for a relay: it drains first.
func (p *Proc) Terminate() error {
	return p.leave(func() { _ = p.proc.Signal(syscall.SIGTERM) }) // it may have ended
}

func (p *Proc) leave(ask func()) error {
	p.once.Do(func() {
		defer p.in.Close()
		ask()
		timer := time.AfterFunc(stopPatience, p.kill)
		defer timer.Stop()
		if err := p.proc.Wait(); err != nil {
			p.err = p.explain(fmt.Errorf("world: %s on %s: %w", p.role, p.host, err))
		}
	})
	return p.err
}

// Kill ends the process without a chance to say goodbye, and waits for its end.
func (p *Proc) Kill() {
	p.once.Do(func() {
		_ = p.in.Close()
		p.kill()
		_ = p.proc.Wait()
	})
}

// Freeze stops the process where it is, without a word to it, until Thaw: what function platforms do between invocations.
func (p *Proc) Freeze() error { return p.proc.Signal(sigStop) }

// Thaw lets a frozen process go on.
func (p *Proc) Thaw() error { return p.proc.Signal(sigCont) }

func (p *Proc) kill() { _ = p.proc.Signal(syscall.SIGKILL) } // it may have ended

// Pid is the process ID, as this program sees it.
func (p *Proc) Pid() int { return p.proc.Pid() }

// Said is the end of what the process wrote to its standard error, on one line.
func (p *Proc) Said() string { return p.stderr.String() }

// explain adds what the process wrote to its standard error if it has gone.
func (p *Proc) explain(err error) error {
	var exit *exec.ExitError
	if err == nil || !errors.Is(err, worker.ErrGone) && !errors.As(err, &exit) {
		return err
	}
	if said := p.stderr.String(); said != "" {
		return fmt.Errorf("%w; it said: %s", err, said)
	}
	return err
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex // guards text
	text []byte
}

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - stderrKeptBytes; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

// String returns what is kept, on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.text)), " ")
}
