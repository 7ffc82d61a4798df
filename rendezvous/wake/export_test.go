package wake

var (
	Sign       = sign
	VerifyAt   = verify
	RetryAfter = retryAfter
)

// Target is the URL that a hook calls.
func (h *Hook) Target(d Data) string { return h.target(&d) }

// Remembered is how many names the sender has in memory.
func (s *Sender) Remembered() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.names)
}
