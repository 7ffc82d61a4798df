package redis

import "github.com/redis/rueidis"

const ChunkSize = chunkSize

func (s *Store) Client() rueidis.Client { return s.client }

func ParseMeta(m string) (int64, error) { return parseMeta(m) }
func Meta(id string, size int64) string { return meta(id, size) }
func Parse(rawURL string) (string, error) { // the URL without secrets
	_, s, err := parse(rawURL)
	if err != nil {
		return "", err
	}
	return s.url, nil
}
