// Package open opens a store by its URL, for programs that let their user choose one. It links every driver: a function that knows
// its store calls that driver's own Open, and package fnlib never imports this one.
package open

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/file"
	"github.com/fnwire/fnwire/fnlib/store/natsobj"
	"github.com/fnwire/fnwire/fnlib/store/redis"
	"github.com/fnwire/fnwire/fnlib/store/s3"
)

// driver opens the stores of one kind of URL.
type driver struct {
	scheme  string
	example string
	open    func(ctx context.Context, rawURL string) (store.Store, error)
}

func drivers() []driver {
	return []driver{
		{"file", "file:///var/lib/states", as(file.Open)},
		{"s3", "s3://bucket/prefix?region=eu-central-1", as(s3.Open)},
		{"nats", "nats:", as(natsobj.Open)},
		{"tls", "tls://user:password@host:4222/bucket", as(natsobj.Open)},
		{"redis", "redis://user:password@host:6379/0", as(redis.Open)},
		{"rediss", "rediss://user:password@host:6379/0", as(redis.Open)},
	}
}

// as makes a driver's Open return the interface, and no typed nil in it.
func as[S store.Store](open func(context.Context, string) (S, error)) func(context.Context, string) (store.Store, error) {
	return func(ctx context.Context, rawURL string) (store.Store, error) {
		s, err := open(ctx, rawURL)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// URL opens the store of a URL with the driver that its scheme names. The error for a scheme that no driver has names those there
// are, each with an example.
func URL(ctx context.Context, rawURL string) (store.Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("store: the URL cannot be parsed: %w", err)
	}
	for _, d := range drivers() {
		if d.scheme == u.Scheme {
			return d.open(ctx, rawURL)
		}
	}
	return nil, fmt.Errorf("store: %s has no scheme that is known; want a URL like %s", u.Redacted(), strings.Join(Examples(), ", "))
}

// Examples returns a URL of each kind.
func Examples() (urls []string) {
	for _, d := range drivers() {
		urls = append(urls, d.example)
	}
	return urls
}
