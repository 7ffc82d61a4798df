package natsobj

// SetChunk changes how large the chunks of what is put are.
func (s *Store) SetChunk(bytes int64) { s.chunk = bytes }

// ParseObject reads a header and writes it again.
func ParseObject(header string) (size, chunks int64, again string, err error) {
	o, err := parseObject(header)
	return o.size, o.chunks(), o.String(), err
}
