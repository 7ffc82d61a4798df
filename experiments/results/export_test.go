package results

import "time"

// Pace is what tells that a window was slow.
type Pace struct{ pace }

// SlowWindow is told of the probes of one.
func (p *Pace) SlowWindow(took []time.Duration) bool { return p.slow(took) }

// NoteWindow has s count a window.
func (s *Steady) NoteWindow(from, to time.Time, slow bool) { s.note(span{from, to}, slow) }
