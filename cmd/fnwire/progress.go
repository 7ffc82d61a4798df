package main

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/schollz/progressbar/v3"
)

// progress shows one transfer at a time on a terminal, and nothing elsewhere.
type progress struct {
	w  io.Writer
	on bool

	mu      sync.Mutex // guards what follows
	waiting int        // width of the text of wait
	busy    bool
}

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, on: !quiet && terminal(w)}
}

// wait tells what the command waits for, until the next transfer begins or clear is called.
func (p *progress) wait(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || p.busy {
		return
	}
	p.clearLocked()
	text := fmt.Sprintf(format, args...)
	p.waiting = len(text)
	_, _ = fmt.Fprint(p.w, text, "\r") // a terminal that is gone shows nothing
}

func (p *progress) clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked()
}

func (p *progress) clearLocked() {
	if p.waiting > 0 {
		_, _ = fmt.Fprint(p.w, strings.Repeat(" ", p.waiting), "\r") // likewise
		p.waiting = 0
	}
}

// meter is the progress of one transfer. Its zero value shows nothing.
type meter struct {
	p    *progress
	bar  *progressbar.ProgressBar
	what string
	path string
}

// start shows the transfer of a key and total bytes, -1 if unknown. While another one is shown it shows
// nothing.
func (p *progress) start(key, whom string, total int64) *meter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on || p.busy {
		return &meter{}
	}
	p.clearLocked()
	p.busy = true
	what := clip(key, 20) + " " + clip(whom, 16) // a bar that is wider than the terminal would leave traces
	if total <= 0 {
		total = -1
	}
	bar := progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(p.w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true),
		progressbar.OptionShowCount(), progressbar.OptionSetWidth(20),
		progressbar.OptionSpinnerType(14), progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
		progressbar.OptionClearOnFinish(),
	)
	return &meter{p: p, bar: bar, what: what}
}

// set tells how many bytes went so far, and over what path they go. Call it a few times a second.
func (m *meter) set(bytes int64, path string) {
	if m.bar == nil {
		return
	}
	if path != m.path {
		m.path = path
		m.bar.Describe(m.what + " (" + path + ")")
	}
	_ = m.bar.Set64(bytes) // more than was announced, which the transfer itself will tell
}

// done takes it off the screen.
func (m *meter) done() {
	if m.bar == nil {
		return
	}
	_ = m.bar.Clear() // a terminal that is gone shows nothing
	_ = m.bar.Exit()  // likewise
	m.bar = nil
	m.p.mu.Lock()
	m.p.busy = false
	m.p.mu.Unlock()
}

// clip shortens what has more than n characters, and takes out what would confuse a terminal.
func clip(s string, n int) string {
	r := []rune(printable(s))
	if len(r) > n {
		r = append(r[:n-1], '…')
	}
	return string(r)
}
