package file

import (
	"context"
	"io/fs"
	"time"
)

// OpenAt opens a store that has a clock of its own and is swept by Sweep only.
func OpenAt(rawURL string, now func() time.Time) (*Store, error) { return open(rawURL, now) }

func (s *Store) Sweep(ctx context.Context) { s.sweep(ctx) }

func Examine(f fs.File) (uint64, int64, error) { return examine(f) }

func PathOf(key string) string         { return pathOf(key) }
func KeyOf(name string) (string, bool) { return keyOf(name) }
