package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/open"
)

const (
	opPut = "put"
	opGet = "get"
)

// Store is a storage service, as fnlib/store/open opens it.
type Store struct {
	URL string            `json:"url"`
	Env map[string]string `json:"env,omitempty"` // with its credentials
}

// PutArgs say what to put where.
type PutArgs struct {
	Store  Store           `json:"store"`
	Key    string          `json:"key"`
	Source workload.Source `json:"source"`
}

// Put stores a state. The store is opened by the first Put or Get of a worker and kept.
func (c *Client) Put(ctx context.Context, a PutArgs) (s Sent, err error) {
	return s, c.Call(ctx, opPut, a, &s)
}

func (f *function) put(ctx context.Context, a PutArgs) (Sent, error) {
	s := Sent{Began: now()}
	st, err := f.opened(ctx, a.Store)
	if err != nil {
		return s, err
	}
	r := a.Source.Open()
	defer r.Close()
	h := sha256.New()
	err = st.Put(ctx, a.Key, io.TeeReader(r, h), store.PutOptions{Size: a.Source.Size()})
	s.Ended, s.Digest = now(), hex.EncodeToString(h.Sum(nil))
	return s, err
}

// GetArgs say which state to get.
type GetArgs struct {
	Store  Store  `json:"store"`
	Key    string `json:"key"`
	Delete bool   `json:"delete"` // afterwards, so that the store does not grow
}

// Get reads a state that is stored.
func (c *Client) Get(ctx context.Context, a GetArgs) (r Received, err error) {
	return r, c.Call(ctx, opGet, a, &r)
}

func (f *function) get(ctx context.Context, a GetArgs) (Received, error) {
	r := Received{Key: a.Key, Began: now()}
	r.Path, _, _ = strings.Cut(a.Store.URL, ":")
	st, err := f.opened(ctx, a.Store)
	if err != nil {
		return r, err
	}
	object, _, err := st.Get(ctx, a.Key, 0)
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
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return r, err
		}
	}
	r.Digest = hex.EncodeToString(h.Sum(nil))
	r.Last = now()
	if a.Delete {
		return r, st.Delete(ctx, a.Key)
	}
	return r, nil
}

// opened returns the worker's connection to a store.
func (f *function) opened(ctx context.Context, s Store) (store.Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if st := f.stores[s.URL]; st != nil {
		return st, nil
	}
	for name, value := range s.Env {
		if err := os.Setenv(name, value); err != nil {
			return nil, fmt.Errorf("store: %w", err)
		}
	}
	st, err := open.URL(ctx, s.URL)
	if err != nil {
		return nil, err
	}
	if f.stores == nil {
		f.stores = make(map[string]store.Store)
	}
	f.stores[s.URL] = st
	return st, nil
}
