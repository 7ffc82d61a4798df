package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// kvBucket is the KV bucket that copies share; keys are "<jobID>.<name>".
const kvBucket = "fnwire_v1"

const (
	clusterWithin = 30 * time.Second // a cluster that was started has elected by then
	clusterPause  = 500 * time.Millisecond
)

// kvTable keeps records in a JetStream KV bucket (file storage, one revision: of a bucket in memory, a cluster whose servers are
// restarted one after the other would lose the majority, and with it the bucket for good). Leases are in the
// records; the bucket's TTL only collects what nobody touches any more. Each copy watches the bucket
// once and counts and lists from what it has seen; what it changes it reads from the bucket itself.
type kvTable struct {
	js     jetstream.JetStream
	conf   jetstream.KeyValueConfig
	log    *slog.Logger
	cancel context.CancelFunc
	ctx    context.Context // of the watch
	done   sync.WaitGroup

	opening sync.Mutex // one reopening at a time

	mu   sync.Mutex // guards what follows
	kv   jetstream.KeyValue
	seen *memory // what the watch has told
}

func openKV(ctx context.Context, nc *nats.Conn, c *config) (*kvTable, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("table: %w", err)
	}
	t := &kvTable{js: js, log: c.Logger, seen: newMemory()}
	t.conf = jetstream.KeyValueConfig{
		Bucket: kvBucket, Description: "fnwire rendezvous: who holds which name",
		History: 1, Storage: jetstream.FileStorage, Replicas: c.Replicas,
		TTL:      max(c.Lease, rendezvous.MaxPark, 2*rendezvous.MaxClockSkew, wake.MaxTimeout+time.Minute) + time.Minute,
		MaxBytes: 2 * int64(c.Limits.AllBytes),
	}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if err := t.openFirst(ctx); err != nil {
		t.close()
		return nil, fmt.Errorf("table: %w (does this NATS have JetStream, and as many servers as --replicas says?)", err)
	}
	return t, nil
}

// openFirst opens the table of a NATS that may have been started a moment ago: a cluster that is still electing its leaders does
// not answer, or says that it lacks servers.
func (t *kvTable) openFirst(ctx context.Context) error {
	for until := time.Now().Add(clusterWithin); ; {
		err := t.open(ctx)
		if err == nil || ctx.Err() != nil || time.Now().After(until) || permanent(err) {
			return err
		}
		t.log.Warn("rendezvous: NATS does not give the table yet; trying again", "err", err)
		select {
		case <-time.After(clusterPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// permanent tells whether NATS will not do either later what it was asked for: it has no JetStream, or one server and never more.
func permanent(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) ||
		errors.As(err, &api) && natsserver.ErrorIdentifier(api.ErrorCode) == natsserver.JSStreamReplicasNotSupportedErr
}

// open makes the bucket if need be and watches it until close, or until it is opened again.
func (t *kvTable) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	kv, err := t.js.CreateOrUpdateKeyValue(ctx, t.conf)
	if err != nil {
		return err
	}
	w, err := kv.WatchAll(t.ctx)
	if err != nil {
		return err
	}
	seen := newMemory()
	t.mu.Lock()
	t.kv, t.seen = kv, seen
	t.mu.Unlock()
	t.done.Go(func() {
		defer func() { _ = w.Stop() }() // the consumer ends by itself if the server is gone
		for {
			select {
			case <-t.ctx.Done():
				return
			case e, ok := <-w.Updates():
				t.mu.Lock()
				current := t.seen == seen
				t.mu.Unlock()
				if !ok || !current {
					return
				}
				if e != nil {
					seen.note(e, t.log)
				}
			}
		}
	})
	return nil
}

// note takes over what the watch tells.
func (m *memory) note(e jetstream.KeyValueEntry, log *slog.Logger) {
	k, ok := parseKey(e.Key())
	if !ok {
		return
	}
	var r record
	if e.Operation() == jetstream.KeyValuePut {
		if err := json.Unmarshal(e.Value(), &r); err != nil {
			log.Warn("rendezvous: table: unreadable record", "err", err)
			return
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Revision() < m.rows[k].rev {
		return
	}
	m.drop(k)
	if !r.empty(time.Now()) {
		m.rows[k] = row{record: r, rev: e.Revision(), bytes: r.size()}
		m.account(k.job, 1, m.rows[k].bytes)
	}
}

func parseKey(s string) (key, bool) {
	id, name, ok := strings.Cut(s, ".")
	j, err := job.ParseID(id)
	return key{j, name}, ok && err == nil && job.CheckName(name) == nil
}

func (k key) String() string { return k.job.String() + "." + k.name }

// do runs f, and once more on a bucket made anew if the old one is gone: it lives in memory, so it
// does not survive its server.
func (t *kvTable) do(ctx context.Context, f func(jetstream.KeyValue) error) error {
	t.mu.Lock()
	kv := t.kv
	t.mu.Unlock()
	err := f(kv)
	if !gone(err) {
		return err
	}
	t.opening.Lock()
	defer t.opening.Unlock()
	t.mu.Lock()
	fresh := t.kv
	t.mu.Unlock()
	if fresh == kv {
		t.log.Warn("rendezvous: table is gone; starting an empty one")
		if err := t.open(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	kv = t.kv
	t.mu.Unlock()
	return f(kv)
}

func gone(err error) bool {
	return errors.Is(err, jetstream.ErrNoStreamResponse) || errors.Is(err, jetstream.ErrStreamNotFound) ||
		errors.Is(err, jetstream.ErrBucketNotFound) || errors.Is(err, nats.ErrNoResponders)
}

func (t *kvTable) get(ctx context.Context, k key) (r record, rev uint64, err error) {
	err = t.do(ctx, func(kv jetstream.KeyValue) error {
		e, err := kv.Get(ctx, k.String())
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		rev = e.Revision()
		return json.Unmarshal(e.Value(), &r)
	})
	return r, rev, err
}

func (t *kvTable) put(ctx context.Context, k key, r record, rev uint64) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return t.do(ctx, func(kv jetstream.KeyValue) error {
		if rev == 0 {
			_, err = kv.Create(ctx, k.String(), b)
		} else {
			_, err = kv.Update(ctx, k.String(), b, rev)
		}
		if errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch) {
			return errConflict
		}
		return err
	})
}

func (t *kvTable) cache() *memory {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seen
}

func (t *kvTable) list(ctx context.Context, j *job.ID) (map[key]record, error) {
	return t.cache().list(ctx, j)
}

func (t *kvTable) used(j *job.ID) usage { return t.cache().used(j) }

// sweep forgets here what the bucket forgets by its TTL, and notices a bucket that is gone.
func (t *kvTable) sweep(now time.Time) {
	t.cache().sweep(now)
	ctx, cancel := context.WithTimeout(t.ctx, requestTimeout)
	defer cancel()
	err := t.do(ctx, func(kv jetstream.KeyValue) error {
		_, err := kv.Status(ctx)
		return err
	})
	if err != nil && t.ctx.Err() == nil {
		t.log.Warn("rendezvous: table", "err", err)
	}
}

func (t *kvTable) close() {
	t.cancel()
	t.done.Wait()
}
