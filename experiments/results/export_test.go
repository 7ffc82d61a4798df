package results

import "time"

// Slowed is what tells that a window was slow.
var Slowed = slowed

// NoteWindow has s count a window.
func (s *Steady) NoteWindow(from, to time.Time, slow bool) { s.note(span{from, to}, slow) }
