// Package coturn runs the TURN server coturn, as Debian packages it, for experiments. It is configured for speed: see Args.
package coturn

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/rpc"
)

const (
	program     = "turnserver"
	realm       = "lab"
	user        = "user"
	password    = "password"
	ticksPerSec = 100 // of /proc/PID/stat; USER_HZ is that on all of Linux
	readyWithin = 10 * time.Second
	stopWithin  = 3 * time.Second
)

// Access is what a client must know of a TURN server, as JSON.
type Access struct {
	Addr     netip.AddrPort `json:"addr"`
	Realm    string         `json:"realm"`
	User     string         `json:"user"`
	Password string         `json:"password"`
}

// Args are the arguments with which coturn runs: UDP only, long-term credentials (which cost nothing for channel data), a relay
// thread for each core (its default), no listener for management, and no file: no log, no database of users.
func Args(listen netip.AddrPort) []string {
	return []string{
		"-n", "--listening-ip=" + listen.Addr().String(), "--relay-ip=" + listen.Addr().String(),
		"--listening-port=" + strconv.Itoa(int(listen.Port())), "--realm=" + realm, "--lt-cred-mech", "--user=" + user + ":" + password,
		"--no-tls", "--no-dtls", "--no-tcp", "--no-tcp-relay", "--no-cli", "--no-rfc5780", "--no-multicast-peers", "--no-software-attribute",
		"--no-dynamic-ip-list", "--no-dynamic-realms", "--fingerprint",
		"--log-file=/dev/null", "--simple-log", "--pidfile=/dev/null", "--userdb=/dev/null",
	}
}

type server struct {
	cmd *exec.Cmd
}

// Serve starts coturn. An error that wraps peer.ErrMissing tells how to install it.
func Serve(ctx context.Context, listen netip.AddrPort) (peer.Server, string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, "", fmt.Errorf("coturn: %w: install it with: apt-get install coturn", peer.ErrMissing)
	}
	s := &server{exec.Command(path, Args(listen)...)}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = nil, io.Discard, io.Discard
	s.cmd.SysProcAttr = dieWithParent()
	if err := s.cmd.Start(); err != nil {
		return nil, "", fmt.Errorf("coturn: %w", err)
	}
	if err := awaitSTUN(ctx, listen); err != nil {
		_ = s.Close()
		return nil, "", fmt.Errorf("coturn: %w", err)
	}
	b, err := json.Marshal(Access{listen, realm, user, password})
	return s, string(b), err
}

// awaitSTUN asks for a binding until there is an answer.
func awaitSTUN(ctx context.Context, addr netip.AddrPort) error {
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	defer c.Close()
	request := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, bytes.Repeat([]byte{7}, 12)...)
	for until := time.Now().Add(readyWithin); time.Now().Before(until) && ctx.Err() == nil; {
		_, _ = c.Write(request) // refused until it listens
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1500)); err == nil && n >= 20 {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("no answer from %v after %v: %w", addr, readyWithin, context.Cause(ctx))
}

// Usage returns the user and system time of coturn, to a hundredth of a second, and its peak of memory.
func (s *server) Usage(context.Context) (u rpc.Usage, err error) {
	proc := "/proc/" + strconv.Itoa(s.cmd.Process.Pid)
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return u, fmt.Errorf("coturn: %w", err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return u, fmt.Errorf("coturn: %s/stat has %d fields", proc, len(fields))
	}
	for _, f := range fields[11:13] { // utime, stime
		ticks, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return u, fmt.Errorf("coturn: %w", err)
		}
		u.CPU += time.Duration(ticks) * time.Second / ticksPerSec
	}
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return u, fmt.Errorf("coturn: %w", err)
	}
	if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
		if f := strings.Fields(after); len(f) > 0 {
			kib, _ := strconv.ParseInt(f[0], 10, 64) // what is no number counts as nothing
			u.MaxRSSBytes = kib << 10
		}
	}
	return u, nil
}

// Close ends coturn.
func (s *server) Close() error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.AfterFunc(stopWithin, func() { _ = s.cmd.Process.Kill() })
	defer timer.Stop()
	_ = s.cmd.Wait() // how it ends does not matter
	return nil
}
