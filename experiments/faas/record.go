package faas

import (
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

// Record is one thing that happened: one of its fields is set.
type Record struct {
	Invocation *Invocation `json:"invocation,omitempty"`
	Instance   *Instance   `json:"instance,omitempty"` // has ended
	Dropped    *Dropped    `json:"dropped,omitempty"`
}

// Start is the state in which an event found the instance that it was given to.
type Start string

// The kinds of start.
const (
	Cold   Start = "cold"   // it was started for this event
	Warm   Start = "warm"   // it was waiting
	Thawed Start = "thawed" // it was waiting, frozen
)

// Why an instance has ended.
const (
	WhyIdle     = "idle"    // reclaimed: no event came for Config.Idle
	WhyAge      = "age"     // reclaimed: its time was up, by Config.Lifetime
	WhyRoom     = "room"    // reclaimed: another function needed the host
	WhyTold     = "told"    // reclaimed: by Platform.Reclaim
	WhyClosed   = "closed"  // with the platform
	WhyTimedOut = "timeout" // an event was not answered in time, or init took too long
	WhyExited   = "exited"  // the process ended by itself
)

// Throttled is the Error of an invocation that got no instance, because all were busy.
const Throttled = "Throttled"

// Invocation is one attempt to have a function handle an event.
type Invocation struct {
	Time     time.Time `json:"time"` // when the event, or its turn to be tried again, came
	Request  string    `json:"request_id"`
	Function string    `json:"function"`
	Async    bool      `json:"async,omitempty"`   // it was queued
	Attempt  int       `json:"attempt,omitempty"` // of a queued event, from 1
	Instance string    `json:"instance,omitempty"`
	Host     string    `json:"host,omitempty"`
	NAT      lab.Kind  `json:"nat,omitempty"`
	Start    Start     `json:"start,omitempty"`
	Error    string    `json:"error,omitempty"` // the type of the function's error, or Throttled

	WaitMS     float64 `json:"wait_ms"`             // until there was an instance
	InitMS     float64 `json:"init_ms,omitempty"`   // of a cold start: from the start of the process until it asked for an event
	FrozenMS   float64 `json:"frozen_ms,omitempty"` // how long the instance had been frozen
	DurationMS float64 `json:"duration_ms"`         // from when the process got the event until it answered
	BusyMS     float64 `json:"busy_ms"`             // from then until it and its extensions asked for the next
	BilledMS   int64   `json:"billed_ms"`
	MemoryMB   int     `json:"memory_mb"`
	GBSeconds  float64 `json:"gb_seconds"`
	MaxRSS     int64   `json:"max_rss_bytes,omitempty"` // of the process, so far in its life; 0: it has ended before that was seen
	Sent       int     `json:"payload_bytes"`
	Received   int     `json:"response_bytes"`
}

// Instance is the life of an instance.
type Instance struct {
	ID          string    `json:"instance"`
	Function    string    `json:"function"`
	Host        string    `json:"host"`
	NAT         lab.Kind  `json:"nat"`
	Started     time.Time `json:"started"`
	Ended       time.Time `json:"ended"`
	Why         string    `json:"why"`
	Invocations int       `json:"invocations"`
	InitMS      float64   `json:"init_ms"`
	BusyMS      float64   `json:"busy_ms"`
	FrozenMS    float64   `json:"frozen_ms"`
	Freezes     int       `json:"freezes"`
	MaxRSS      int64     `json:"max_rss_bytes"`
}

// Dropped is a queued event that is given up.
type Dropped struct {
	Time     time.Time `json:"time"`
	Request  string    `json:"request_id"`
	Function string    `json:"function"`
	Attempts int       `json:"attempts"` // with an instance
	Why      string    `json:"why"`      // "retries", "age" or "closed"
}

// Lines returns a Config.Record that writes one JSON object a line. failed is told of the first error of w, and may be nil.
func Lines(w io.Writer, failed func(error)) func(Record) {
	e := json.NewEncoder(w)
	broken := false
	return func(r Record) {
		if broken {
			return
		}
		if err := e.Encode(r); err != nil {
			if broken = true; failed != nil {
				failed(err)
			}
		}
	}
}

// Totals is what a function has used.
type Totals struct {
	Requests  int     `json:"requests"` // billed: those that got an instance
	Throttled int     `json:"throttled"`
	Errors    int     `json:"errors"` // of the function
	Cold      int     `json:"cold"`
	BilledMS  int64   `json:"billed_ms"`
	GBSeconds float64 `json:"gb_seconds"`
}

func (t *Totals) add(v *Invocation) {
	if v.Start == "" {
		t.Throttled++
		return
	}
	t.Requests++
	if v.Error != "" {
		t.Errors++
	}
	if v.Start == Cold {
		t.Cold++
	}
	t.BilledMS += v.BilledMS
	t.GBSeconds += v.GBSeconds
}

// bill says what an invocation costs: times are rounded up to 1 ms together.
func (v *Invocation) bill(init, busy time.Duration) {
	v.InitMS, v.BusyMS = ms(init), ms(busy)
	v.BilledMS = int64(math.Ceil(ms(init + busy)))
	v.GBSeconds = float64(v.MemoryMB) / 1024 * float64(v.BilledMS) / 1000
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
