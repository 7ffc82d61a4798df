// Package proxy makes TCP connections through HTTP proxies, by CONNECT (RFC 9110, 9.3.6): how the relay's and the
// rendezvous' WebSocket connections leave a network that lets nothing else out. It reads nothing of what it carries, and
// speaks no SOCKS.
package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Find tells which proxy a request goes by, or nil. http.ProxyFromEnvironment is one: it knows HTTPS_PROXY, HTTP_PROXY and NO_PROXY,
// and takes none for loopback addresses.
type Find func(*http.Request) (*url.URL, error)

// maxAnswer bounds what is read of a proxy's answer.
const maxAnswer = 16 << 10

// Dial connects to addr, a HOST:PORT, directly or by the proxy that find names; nil is http.ProxyFromEnvironment. Scheme is that of
// the connection's purpose, "http" or "https". A proxy resolves the host's name itself. ctx bounds all of it.
func Dial(ctx context.Context, find Find, scheme, addr string) (net.Conn, error) {
	if find == nil {
		find = http.ProxyFromEnvironment
	}
	by, err := find(&http.Request{URL: &url.URL{Scheme: scheme, Host: addr}})
	if err != nil {
		return nil, fmt.Errorf("proxy: %w; set HTTPS_PROXY to http://HOST:PORT", err)
	}
	if by == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}
	conn, err := reach(ctx, by)
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", by.Redacted(), err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	err = ask(conn, by.User, addr)
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("proxy %s: CONNECT %s: %w", by.Redacted(), addr, err)
	}
	return conn, nil
}

// reach connects to a proxy.
func reach(ctx context.Context, by *url.URL) (net.Conn, error) {
	port := by.Port()
	switch {
	case by.Scheme != "http" && by.Scheme != "https":
		return nil, fmt.Errorf("a proxy of scheme %q is not known: want http:// or https://", by.Scheme)
	case port == "" && by.Scheme == "http":
		port = "80"
	case port == "":
		port = "443"
	}
	at := net.JoinHostPort(by.Hostname(), port)
	if by.Scheme == "https" {
		return (&tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", at)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", at)
}

// ask has the proxy at the other end of conn connect to addr.
func ask(conn net.Conn, user *url.Userinfo, addr string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: make(http.Header)}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // it is empty, or the connection is given up
	switch {
	case res.StatusCode == http.StatusProxyAuthRequired:
		return fmt.Errorf("%s: name a user and password in HTTPS_PROXY, http://USER:PASSWORD@HOST:PORT", res.Status)
	case res.StatusCode != http.StatusOK:
		return errors.New(res.Status)
	case r.Buffered() > 0: // who is connected to waits for us to speak
		return errors.New("more came than the answer")
	}
	return nil
}
