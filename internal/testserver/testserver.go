// Package testserver starts the storage servers that fnwire is tested against and compared with, on loopback, as processes of
// their own. It never uses a server that it did not start.
//
//	s, err := testserver.StartRedis(ctx, dir)
//	defer s.Stop()
//	store, err := redis.Open(ctx, s.URL)
//
// A Program can also be run elsewhere, as in a lab's network namespace: Command gives the process, Ready waits until it answers.
package testserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	startWithin = 20 * time.Second
	stopWithin  = time.Second // then the server is killed, as versitygw must be while a client is connected
	askEvery    = 5 * time.Millisecond
	startTries  = 3       // each with another port: somebody may take it between our looking and the server's binding
	keepOutput  = 4 << 10 // bytes of what the server wrote last
)

var errEnded = errors.New("testserver: it ended at once")

// MissingError says that a program is not installed.
type MissingError struct{ Program, Remedy string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed: %s", e.Program, e.Remedy)
}

// Program is a server that can be started.
type Program struct {
	Name string
	Path string
	Args []string
	Env  []string // beside the environment
	Dirs []string // that must be there before it starts
	Addr string   // host:port that it listens on
	URL  string   // how a store is opened that it keeps, without credentials that Env holds
	ask  func(ctx context.Context, addr string) error
}

// Command is the process, not started yet. It is killed when ctx ends.
func (p Program) Command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Env = append(cmd.Environ(), p.Env...)
	return cmd
}

// Ready waits until the server answers.
func (p Program) Ready(ctx context.Context) error {
	for {
		err := p.ask(ctx, p.Addr)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("testserver: %s does not answer: %w", p.Name, err)
		case <-time.After(askEvery):
		}
	}
}

// Server is a running Program.
type Server struct {
	Program
	cmd  *exec.Cmd
	kill context.CancelFunc
	out  *tail
	done chan struct{} // closed when the process has ended, as ended says
	err  error
	once sync.Once
}

// start starts what prepare makes for a free port of loopback. The server lives until Stop, whatever becomes of ctx.
func start(ctx context.Context, prepare func(addr string) (Program, error)) (*Server, error) {
	var failed error
	for range startTries {
		addr, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		p, err := prepare(addr)
		if err != nil {
			return nil, err
		}
		s, err := p.start(ctx)
		if err == nil {
			return s, nil
		}
		if failed = err; ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

func (p Program) start(ctx context.Context) (*Server, error) {
	for _, dir := range p.Dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("testserver: %w", err)
		}
	}
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	s := &Server{Program: p, kill: kill, cmd: p.Command(running), out: &tail{}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		kill()
		return nil, fmt.Errorf("testserver: %w", err)
	}
	go func() {
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	asking, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	go func() {
		select {
		case <-s.done: // it will never answer
			cancel()
		case <-asking.Done():
		}
	}()
	err := p.Ready(asking)
	select {
	case <-s.done: // whoever answered was somebody else
		err = errors.Join(err, errEnded)
	default:
	}
	if err != nil {
		return nil, fmt.Errorf("%w; it wrote:\n%s", errors.Join(err, s.Stop()), s.out)
	}
	return s, nil
}

// Process is the server's process ID.
func (s *Server) Process() int { return s.cmd.Process.Pid }

// Output is what the server wrote last.
func (s *Server) Output() string { return s.out.String() }

// Stop ends the server and waits. It is an error if it had ended by itself.
func (s *Server) Stop() error {
	s.once.Do(func() {
		defer s.kill()
		select {
		case <-s.done:
			s.err = fmt.Errorf("testserver: %s had ended: %w", s.Name, s.err)
			return
		default:
		}
		if s.cmd.Process.Signal(syscall.SIGTERM) != nil { // not on this system
			s.kill()
		}
		select {
		case <-s.done:
		case <-time.After(stopWithin):
			s.kill()
			<-s.done
		}
		s.err = nil // how it says that it was told to end is its own business
	})
	return s.err
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("testserver: no port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// tail keeps the end of what is written.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - keepOutput; extra > 0 {
		t.buf = bytes.Clone(t.buf[extra:])
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
