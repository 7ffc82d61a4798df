// Package holder keeps a lab up in a process of its own, and lets other processes of the same user run commands in
// it, look at it and take it down, over a Unix socket that only that user may open. It works the same for root and inside
// a user namespace, because commands are started by the holder: the caller's files are passed to it (SCM_RIGHTS).
// It never listens on a network.
//
// Protocol: one request per connection. The caller sends one blank, with its standard input, output and error
// attached if the request is "exec", then the request as JSON, then, while a command runs, signals as JSON. The holder answers
// "exec" with {} once the command runs and with its end, other requests with one answer; all are JSON objects, one a line.
package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
	"golang.org/x/sys/unix"
)

const (
	maxRequestBytes = 8 << 20 // an environment and arguments may take 2 MiB in Linux, and JSON makes them longer
	requestTimeout  = 10 * time.Second
)

// Info is what a holder tells of its lab.
type Info struct {
	Name  string         `json:"name"`
	Pid   int            `json:"pid"` // of the holder
	Hosts []lab.HostInfo `json:"hosts"`
}

// Command is a program to run on a host of the lab, as in os/exec.
type Command struct {
	Host string   `json:"host"`
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
}

type request struct {
	Op      string  `json:"op"` // status, down, exec
	Command Command `json:"command"`
}

type signalMsg struct {
	Signal int `json:"signal"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	Info  *Info  `json:"info,omitempty"`
	Exit  *int   `json:"exit,omitempty"` // 128 + n if killed by signal n
}

// Serve answers requests about l on ln until ctx ends or somebody asks for the lab to be taken down. Then it closes the
// lab and ln, removes the directory of the socket if it is empty, answers who asked, and returns nil.
func Serve(ctx context.Context, ln *net.UnixListener, l *lab.Lab, name string) error {
	s := &server{lab: l, info: Info{Name: name, Pid: os.Getpid(), Hosts: l.Hosts()}}
	var conns sync.WaitGroup
	ctx, s.down = context.WithCancel(ctx)
	defer s.down()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var failed error
	for ctx.Err() == nil {
		conn, err := ln.AcceptUnix()
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			break
		}
		if err != nil {
			failed = fmt.Errorf("lab: accept: %w", err)
			break
		}
		conns.Go(func() { s.serve(ctx, conn) })
	}
	s.down()
	_ = ln.Close()
	err := errors.Join(failed, l.Close()) // which ends all commands
	conns.Wait()
	Cleanup(ln.Addr().String())
	s.farewell()
	return err
}

type server struct {
	lab  *lab.Lab
	info Info
	down context.CancelFunc

	mu      sync.Mutex // guards waiting
	waiting []*net.UnixConn
}

// serve answers one connection.
func (s *server) serve(ctx context.Context, conn *net.UnixConn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	reply := func(a answer) { _ = json.NewEncoder(conn).Encode(a) } // a caller that has gone needs none
	_ = conn.SetReadDeadline(time.Now().Add(requestTimeout))
	files, err := readFiles(conn)
	defer closeAll(files)
	in := json.NewDecoder(io.LimitReader(conn, maxRequestBytes))
	var req request
	if err == nil {
		err = in.Decode(&req)
	}
	if err != nil {
		reply(answer{Error: fmt.Sprintf("request: %v", err)})
		_ = conn.Close()
		return
	}
	switch {
	case req.Op == "down":
		s.mu.Lock()
		s.waiting = append(s.waiting, conn) // answered and closed when all is over
		s.mu.Unlock()
		s.down()
		return
	case req.Op == "status":
		reply(answer{Info: &s.info})
	case req.Op == "exec" && len(files) == 3:
		if ctx.Err() == nil {
			_ = conn.SetReadDeadline(time.Time{})
		}
		s.exec(req.Command, files, in, reply)
	default:
		reply(answer{Error: fmt.Sprintf("request %q with %d files is unknown: is this another version?", req.Op, len(files))})
	}
	_ = conn.Close()
}

// farewell tells those who asked for the end that it has come.
func (s *server) farewell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.waiting {
		_ = json.NewEncoder(conn).Encode(answer{Info: &s.info})
		_ = conn.Close()
	}
}

// exec runs a command with the caller's files. It is killed if the caller goes away.
func (s *server) exec(c Command, files []*os.File, in *json.Decoder, reply func(answer)) {
	cmd := &exec.Cmd{Path: c.Path, Args: c.Args, Env: c.Env, Dir: c.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2]}
	p, err := s.lab.Start(context.Background(), c.Host, cmd)
	closeAll(files)
	if err != nil {
		reply(answer{Error: err.Error()})
		return
	}
	reply(answer{})
	go func() { // ends with the connection at the latest, which serve closes after this
		for {
			var m signalMsg
			if err := in.Decode(&m); err != nil {
				_ = p.Signal(syscall.SIGKILL)
				return
			}
			_ = p.Signal(syscall.Signal(m.Signal))
		}
	}()
	_ = p.Wait()
	code := p.State().ExitCode()
	if status, ok := p.State().Sys().(syscall.WaitStatus); ok && status.Signaled() {
		code = 128 + int(status.Signal())
	}
	reply(answer{Exit: &code})
}

// readFiles reads the first byte of a connection and the files that came with it.
func readFiles(conn *net.UnixConn) ([]*os.File, error) {
	data, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*3))
	_, oobn, _, _, err := conn.ReadMsgUnix(data, oob)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not files
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "caller's file"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
