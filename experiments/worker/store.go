package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/experiments/workload"
)

const (
	opPut = "put"
	opGet = "get"
)

// Bucket is an object store of NATS.
type Bucket struct {
	URL  string `json:"url"` // with user and password
	Name string `json:"name"`
}

// PutArgs say what to put where.
type PutArgs struct {
	Bucket     Bucket          `json:"bucket"`
	Key        string          `json:"key"`
	Source     workload.Source `json:"source"`
	ChunkBytes uint32          `json:"chunk_bytes"` // 0 is NATS' own choice
}

// Put stores a state. The connection is made by the first Put or Get of a worker and kept.
func (c *Client) Put(ctx context.Context, a PutArgs) (s Sent, err error) {
	return s, c.Call(ctx, opPut, a, &s)
}

func (f *function) put(ctx context.Context, a PutArgs) (Sent, error) {
	s := Sent{Began: now()}
	b, err := f.bucket(ctx, a.Bucket)
	if err != nil {
		return s, err
	}
	r := a.Source.Open()
	defer r.Close()
	h := sha256.New()
	meta := jetstream.ObjectMeta{Name: a.Key}
	if a.ChunkBytes > 0 {
		meta.Opts = &jetstream.ObjectMetaOptions{ChunkSize: a.ChunkBytes}
	}
	_, err = b.Put(ctx, meta, io.TeeReader(r, h))
	s.Ended, s.Digest = now(), hex.EncodeToString(h.Sum(nil))
	return s, err
}

// GetArgs say which state to wait for.
type GetArgs struct {
	Bucket Bucket `json:"bucket"`
	Key    string `json:"key"`
	Delete bool   `json:"delete"` // afterwards, so that the store does not grow
}

// Get waits until a state is stored, told by the store's watch, and reads it.
func (c *Client) Get(ctx context.Context, a GetArgs) (r Received, err error) {
	return r, c.Call(ctx, opGet, a, &r)
}

func (f *function) get(ctx context.Context, a GetArgs) (Received, error) {
	r := Received{Key: a.Key, Path: "nats"}
	b, err := f.bucket(ctx, a.Bucket)
	if err != nil {
		return r, err
	}
	if err := await(ctx, b, a.Key); err != nil {
		return r, err
	}
	object, err := b.Get(ctx, a.Key)
	if err != nil {
		return r, err
	}
	defer object.Close()
	h := sha256.New()
	buf := make([]byte, copyBytes)
	for {
		n, err := object.Read(buf)
		if n > 0 && r.First == 0 {
			r.First = now()
		}
		h.Write(buf[:n])
		r.Bytes += int64(n)
		if errors.Is(err, io.EOF) { // after the store's own digest was right
			break
		}
		if err != nil {
			return r, err
		}
	}
	r.Digest = hex.EncodeToString(h.Sum(nil))
	r.Last = now()
	if a.Delete {
		return r, b.Delete(ctx, a.Key)
	}
	return r, nil
}

// await returns when the key is in the bucket. The watch tells first what is there, then what comes.
func await(ctx context.Context, b jetstream.ObjectStore, key string) error {
	w, err := b.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer w.Stop() //nolint:errcheck // it has served
	for {
		select {
		case info, ok := <-w.Updates():
			if !ok {
				return errors.New("the store's watch has ended")
			}
			if info != nil && info.Name == key && !info.Deleted {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bucket returns the bucket, over the connection that the worker has or gets.
func (f *function) bucket(ctx context.Context, b Bucket) (jetstream.ObjectStore, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nc == nil {
		nc, err := nats.Connect(b.URL, nats.Name("fnwire experiment"))
		if err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
		f.nc = nc
	}
	js, err := jetstream.New(f.nc)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	store, err := js.ObjectStore(ctx, b.Name)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		store, err = js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: b.Name})
	}
	if err != nil {
		return nil, fmt.Errorf("store: bucket %q: %w", b.Name, err)
	}
	return store, nil
}
