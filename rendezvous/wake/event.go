package wake

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fnwire/fnwire/internal/job"
)

// MaxEvent is the most bytes that the body of a hook's request has.
const MaxEvent = 4 << 10

// EventType is the type of every Event.
const EventType = "fnwire.wake"

// Reasons of an Event. A receiver should take one that it does not know for Called.
const (
	Called = "called" // somebody wants a link with the name
	Stored = "stored" // a state for the name was put into the store
)

// Event is what a hook is told.
type Event struct {
	Type string    `json:"type"`      // EventType
	Time time.Time `json:"timestamp"` // of the call or state; the attempt has its own, in the header
	Data Data      `json:"data"`
}

// Data says who is to be woken, and why.
type Data struct {
	Job    job.ID `json:"job"`
	Name   string `json:"name"`             // whom to start: it is to join under this name
	Reason string `json:"reason"`           // Called or Stored
	Caller string `json:"caller,omitempty"` // name of who called or sent last, as it says itself
	Parked int    `json:"parked"`           // offers that wait for the name
}

// Errors of Verify and of Send, for errors.Is.
var (
	// ErrSignature: a request was not made with a secret of the hook, or too long ago.
	ErrSignature = errors.New("wake request refused")
	// ErrEvent: the body of a request is none, or none that this version knows.
	ErrEvent = errors.New("no wake event")
	// ErrBusy: too many events wait already, for the name or in all.
	ErrBusy = errors.New("too many wake hooks are waiting")
	// ErrUnwanted: nobody needs to be woken any more.
	ErrUnwanted = errors.New("no need to wake any more")
)

// parseEvent reads the body of a request whose signature is right.
func parseEvent(body []byte) (Event, error) {
	var e Event
	if len(body) > MaxEvent {
		return Event{}, fmt.Errorf("%w: %d bytes, at most %d", ErrEvent, len(body), MaxEvent)
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	if e.Type != EventType {
		return Event{}, fmt.Errorf("%w: type %.32q, want %q", ErrEvent, e.Type, EventType)
	}
	if err := job.CheckName(e.Data.Name); err != nil {
		return Event{}, fmt.Errorf("%w: %w", ErrEvent, err)
	}
	return e, nil
}
