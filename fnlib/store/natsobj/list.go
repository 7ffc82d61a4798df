package natsobj

import (
	"context"
	"errors"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/rendezvous/bucket"
)

const (
	listAtOnce = 500 // objects that a list asks for at a time
	listTries  = 3   // answers in a row with none of those that are there
)

// List calls each for every object. It fails if the server restarts meanwhile.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) bool) error {
	dir := prefix[:strings.LastIndexByte(prefix, '/')+1]
	if dir != "" && store.CheckKey(strings.TrimSuffix(dir, "/")) != nil {
		return ctx.Err() // no key starts with that
	}
	if err := s.list(ctx, prefix, each); err != nil {
		return s.fail(ctx, "list "+prefix, err)
	}
	return nil
}

func (s *Store) list(ctx context.Context, prefix string, each func(store.Info) bool) error {
	c, err := s.listing(ctx, bucket.Filter(s.bucket, prefix))
	if err != nil {
		return err
	}
	defer s.forget(ctx, c)
	seen := make(map[string]struct{}) // what is replaced meanwhile comes again
	failed := 0
	for left := c.CachedInfo().NumPending; left > 0; {
		batch, err := c.FetchNoWait(listAtOnce)
		if err != nil {
			return err
		}
		n := 0
		for m := range batch.Messages() {
			meta, err := m.Metadata()
			if err != nil {
				return err
			}
			left = meta.NumPending
			n++
			info, ok := s.listed(m)
			if _, again := seen[info.Key]; !ok || again || !strings.HasPrefix(info.Key, prefix) {
				continue
			}
			seen[info.Key] = struct{}{}
			if !each(info) {
				return nil
			}
		}
		if err := errors.Join(ctx.Err(), batch.Error()); err != nil {
			return err
		}
		if n > 0 {
			failed = 0
			continue
		}
		// Either the rest was deleted meanwhile, or nothing came in time.
		i, err := c.Info(ctx)
		if failed++; err == nil && i.NumPending > 0 && failed == listTries {
			err = errors.New("the server has more objects, and does not say which")
		}
		if err != nil {
			return err
		}
		left = i.NumPending
	}
	return nil
}

// listing has the server say what there is on a subject.
func (s *Store) listing(ctx context.Context, filter string) (c jetstream.Consumer, err error) {
	err = s.try(ctx, "", func(ctx context.Context) error {
		c, err = s.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
			FilterSubject: filter, DeliverPolicy: jetstream.DeliverAllPolicy, AckPolicy: jetstream.AckNonePolicy,
			HeadersOnly: true, MemoryStorage: true, Replicas: 1,
		})
		return err
	})
	return c, err
}

// forget spares the server the wait for a list that has ended.
func (s *Store) forget(ctx context.Context, c jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanWithin)
	defer cancel()
	_ = s.stream.DeleteConsumer(ctx, c.CachedInfo().Name)
}

// listed reads what a message says of its object. It is not ok if that is none of fnwire's.
func (s *Store) listed(m jetstream.Msg) (info store.Info, ok bool) {
	tokens, ok := strings.CutPrefix(m.Subject(), bucket.Objects(s.bucket))
	o, err := parseObject(m.Headers().Get(headerObject))
	if !ok || err != nil {
		return info, false
	}
	key, err := bucket.Key(tokens)
	if err != nil || store.CheckKey(key) != nil {
		return info, false
	}
	return store.Info{Key: key, Size: o.size}, true
}
