package testserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"time"
)

// Redis is a redis-server that keeps its files in dir and its data in memory only, unless args, which follow its own, say
// otherwise. addr is where it listens. *MissingError: it is not installed.
func Redis(dir, addr string, args ...string) (Program, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return Program{}, &MissingError{"redis-server", "apt-get install redis-server"}
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return Program{}, fmt.Errorf("testserver: %w", err)
	}
	return Program{
		Name: "redis-server", Path: path, Addr: addr, URL: "redis://" + addr, ask: askRedis,
		Args: append([]string{"--bind", host, "--port", port, "--dir", dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, args...),
	}, nil
}

// StartRedis starts a Redis on a free port of loopback.
func StartRedis(ctx context.Context, dir string, args ...string) (*Server, error) {
	return start(ctx, func(addr string) (Program, error) { return Redis(dir, addr, args...) })
}

// askRedis wants any answer but that it is still loading; without a password PING gives an error that will do.
func askRedis(ctx context.Context, addr string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(c, "PING\r\n"); err != nil {
		return err
	}
	var answer [64]byte
	n, err := io.ReadAtLeast(c, answer[:], len("+PONG"))
	if err != nil {
		return err
	}
	if line := string(answer[:n]); strings.HasPrefix(line, "-LOADING") {
		return fmt.Errorf("it says %q", line)
	}
	return nil
}
