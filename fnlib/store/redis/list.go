package redis

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/fnwire/fnwire/fnlib/store"
)

const page = 1000 // keys that the server looks at in one go

// List goes through the whole database, and remembers the keys that it found, for SCAN may give one twice.
func (s *Store) List(ctx context.Context, prefix string, each func(store.Info) bool) error {
	seen := map[string]bool{}
	pattern := escape(s.prefix+prefix) + "*"
	for cursor, more := uint64(0), true; more; more = cursor != 0 {
		scan := s.client.B().Scan().Cursor(cursor).Match(pattern).Count(page).Type("hash").Build()
		found, err := s.do(ctx, scan).AsScanEntry()
		if err != nil {
			return s.fail(ctx, "list", err)
		}
		cursor = found.Cursor
		var keys []string
		for _, name := range found.Elements {
			key := strings.TrimPrefix(name, s.prefix)
			if !seen[key] && store.CheckKey(key) == nil {
				seen[key] = true
				keys = append(keys, key)
			}
		}
		infos, err := s.infos(ctx, keys)
		if err != nil {
			return s.fail(ctx, "list", err)
		}
		for _, info := range infos {
			if !each(info) {
				return nil
			}
		}
	}
	return nil
}

// infos describes those of the keys that are objects.
func (s *Store) infos(ctx context.Context, keys []string) (infos []store.Info, err error) {
	commands := make([]rueidis.Completed, len(keys))
	for i, key := range keys {
		commands[i] = s.client.B().Hmget().Key(s.prefix + key).Field(metaField).Build()
	}
	for i, answer := range s.doMulti(ctx, commands...) {
		m, err := answer.AsStrSlice()
		if refused, ok := rueidis.IsRedisErr(err); ok && strings.HasPrefix(refused.Error(), "WRONGTYPE") {
			continue // it was replaced by something else
		}
		if err != nil {
			return nil, err
		}
		if size, err := parseMeta(strings.Join(m, "")); err == nil {
			infos = append(infos, store.Info{Key: keys[i], Size: size})
		}
	}
	return infos, nil
}

// escape makes a glob pattern that only s itself matches.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`).Replace(s)
}
