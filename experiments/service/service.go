// Package service models what a storage service in a cloud takes beyond what its stand-in on this machine does: a forwarder in front of the
// stand-in's port has the first byte of each answer come later, and bounds the rate of each connection. It changes no byte of what is
// stored, and hides nothing: whatever is measured through it must say so ([Model.Says]).
//
// Of HTTP/1.1 it forwards requests, and holds back the head of each answer; one that asks to go on with a body (100 Continue) is passed on at
// once, for it is no answer yet. Any other protocol is forwarded as bytes, and those to the server are held back: requests that are
// sent without waiting for answers wait side by side, as they would on a longer way.
//
// A connection ends when the server's does, without a word that the server has not said. One has at most 1 MiB under way to the server, and 64 KiB
// from it, beside the kernel's buffers.
package service

import (
	"context"
	"fmt"
	"net"
	"time"
)

// Model is what a service takes beyond its stand-in. The zero value is nothing.
type Model struct {
	HTTP      bool          `json:"http,omitempty"`
	FirstByte time.Duration `json:"first_byte,omitempty"` // later
	Rate      int64         `json:"rate,omitempty"`       // bytes a second of a connection, each way; 0: no bound
	Says      string        `json:"says,omitempty"`       // the same in words, and where the figures are from
}

// None tells whether m adds nothing.
func (m Model) None() bool { return m.FirstByte == 0 && m.Rate == 0 }

// Slowed is m n times slower, for a network that is; see wan.Profile.Slowed.
func (m Model) Slowed(n int) Model {
	m.FirstByte *= time.Duration(n)
	m.Rate /= int64(n)
	return m
}

// S3 is Amazon S3 in the region of its clients, by the shortest of the times and the highest of the rates that others report.
func S3() Model {
	return Model{
		HTTP: true, FirstByte: 20 * time.Millisecond, Rate: 93_000_000,
		Says: "S3: 20 ms more until the first byte of each answer, at most 93 MB/s a connection, each way: 90th percentile and rate for a thread from EC2, 2019-04-02 " +
			"(github.com/dvassallo/s3-benchmark). FMI (ICS 2023) models 40.4 ms and 50 MB/s, Amazon's guidelines tell of 100 to 200 ms and 85 to 90 MB/s",
	}
}

// Redis is a node of ElastiCache in the zone of its clients.
func Redis() Model {
	return Model{
		FirstByte: 100 * time.Microsecond,
		Says: "Redis: 0.1 ms more for each request, which is what a round trip to ElastiCache in the same zone takes, 0.34 ms on average (cachee.ai, 2026-03-29), " +
			"without the network, 0.25 ms in the profile aws-region; no bound on the rate. Amazon says: below a millisecond. FMI (ICS 2023) models 5.2 ms and 100 MB/s",
	}
}

// Serve forwards connections that l accepts to the server at the address, until ctx ends. Then it closes l and all connections, and returns
// nil when nothing of it runs any more.
func (m Model) Serve(ctx context.Context, l net.Listener, server string) error {
	f := forwarder{m, nap, func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", server) }}
	return f.serve(ctx, l)
}

// forwarder is a Model at work.
type forwarder struct {
	Model
	sleep sleeper
	dial  func(context.Context) (net.Conn, error) // the server
}

// sleeper sleeps for as long as it is told to, and hardly longer.
type sleeper func(time.Duration)

func (f forwarder) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.Rate > 0 {
		l = pacedListener{l, f.Rate, f.sleep}
	}
	serve := f.serveBytes
	if f.HTTP {
		serve = f.serveHTTP
	}
	if err := serve(ctx, l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("service: %w", err)
	}
	return nil
}
