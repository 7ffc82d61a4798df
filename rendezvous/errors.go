package rendezvous

import (
	"errors"
	"fmt"
)

// Code tells why the service refuses. Codes are part of the protocol.
type Code string

// Codes of refusals.
const (
	CodeBadRequest   Code = "bad_request"  // malformed, too large, or not of this version
	CodeUnauthorized Code = "unauthorized" // a signature or MAC is missing or wrong
	CodeNotAllowed   Code = "not_allowed"  // the rendezvous does not serve this job
	CodeStale        Code = "stale"        // issued too long ago or in the future, or seen before
	CodeIllegalName  Code = "illegal_name" // not 1 to 64 letters, digits, '-' and '_'
	CodeHeld         Code = "held"         // exclusive join of a name that has a live holder, or the other way round
	CodeFenced       Code = "fenced"       // a newer instance holds the name
	CodeUnknown      Code = "unknown"      // the name is not held by the sender: join again
	CodeNotFound     Code = "not_found"    // nobody holds the name (now, or within the wait)
	CodeFull         Code = "full"         // a bound is reached
	CodeParkedFull   Code = "parked_full"  // as many offers wait for the name as may; wait for its holder instead
	CodeUnavailable  Code = "unavailable"  // the service cannot reach its table now
)

// Errors of this package, for errors.Is.
var (
	// ErrUnreachable: no NATS server answers at the URL.
	ErrUnreachable = errors.New("rendezvous unreachable")
	// ErrUnauthorized: credentials, job key or relay secret are refused.
	ErrUnauthorized = errors.New("not authorized")
	// ErrNotAllowed: the rendezvous does not serve this job, which is also what a wrong job key looks like.
	ErrNotAllowed = errors.New("job not admitted")
	// ErrNoService: NATS answers but no rendezvous serves there.
	ErrNoService = errors.New("no rendezvous service responds on this NATS")
	// ErrIllegalName: see job.CheckName.
	ErrIllegalName = errors.New("illegal name")
	// ErrHeld: the name has a live holder, and it or the new one asked for exclusive use.
	ErrHeld = errors.New("name held")
	// ErrFenced: a newer instance has taken the name.
	ErrFenced = errors.New("fenced by a newer instance of the same name")
	// ErrUnknown: the service does not know the sender as a holder.
	ErrUnknown = errors.New("not joined")
	// ErrNotFound: nobody holds the name.
	ErrNotFound = errors.New("no instance of that name")
	// ErrFull: a bound of the service is reached.
	ErrFull = errors.New("rendezvous is full")
	// ErrStale: clocks differ too much, or a request was repeated.
	ErrStale = errors.New("request too old or repeated")
	// ErrUnavailable: the service is there but cannot work now.
	ErrUnavailable = errors.New("rendezvous cannot answer now")
	// ErrBadRequest: the service did not understand.
	ErrBadRequest = errors.New("bad request")
	// ErrGone: the instance addressed is not connected.
	ErrGone = errors.New("instance not connected")
	// ErrEnvelope: an envelope is not authentic, not for this instance, too old or malformed.
	ErrEnvelope = errors.New("envelope refused")
	// ErrClosed: the client was closed.
	ErrClosed = errors.New("rendezvous client closed")
)

// RefusedError is a refusal by the service. errors.Is matches it with the package's errors.
type RefusedError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Refuse makes a refusal.
func Refuse(code Code, format string, args ...any) *RefusedError {
	return &RefusedError{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *RefusedError) Error() string {
	if e.Message == "" {
		return "rendezvous refused: " + string(e.Code)
	}
	return "rendezvous refused: " + e.Message
}

// Is makes errors.Is(err, ErrFenced) and the like work.
func (e *RefusedError) Is(target error) bool {
	switch e.Code {
	case CodeBadRequest:
		return target == ErrBadRequest
	case CodeUnauthorized:
		return target == ErrUnauthorized
	case CodeNotAllowed:
		return target == ErrNotAllowed
	case CodeStale:
		return target == ErrStale
	case CodeIllegalName:
		return target == ErrIllegalName
	case CodeHeld:
		return target == ErrHeld
	case CodeFenced:
		return target == ErrFenced
	case CodeUnknown:
		return target == ErrUnknown
	case CodeNotFound:
		return target == ErrNotFound
	case CodeFull, CodeParkedFull:
		return target == ErrFull
	case CodeUnavailable:
		return target == ErrUnavailable
	}
	return false
}
