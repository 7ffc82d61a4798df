package natsobj

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/internal/source"
)

const (
	callTimeout = 5 * time.Second // of one attempt
	patience    = 20 * time.Second
	firstPause  = 20 * time.Millisecond
	maxPause    = time.Second
)

// JetStream's error codes that nats.go has no names for (errors.json of nats-server).
const (
	errAccountFull     jetstream.ErrorCode = 10002
	errClusterNotReady jetstream.ErrorCode = 10008
	errInsufficient    jetstream.ErrorCode = 10023
	errNoMessage       jetstream.ErrorCode = 10037
	errStorageFull     jetstream.ErrorCode = 10047
	errStoreFailed     jetstream.ErrorCode = 10077 // the stream has no room for bytes or messages
	errTooMany         jetstream.ErrorCode = 10167
)

// code returns JetStream's error code, or 0.
func code(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}

// call is a request that waits for its answer.
type call struct {
	subject string
	cancel  context.CancelCauseFunc
}

// once does one request on a subject. NATS tells apart from its answers that it does not let us publish, and that the connection is gone, after
// which there is nothing to wait for.
func (s *Store) once(ctx context.Context, subject string, do func(context.Context) error) error {
	attempt, stop := context.WithTimeout(ctx, callTimeout)
	defer stop()
	attempt, cancel := context.WithCancelCause(attempt)
	defer cancel(nil)
	c := &call{subject, cancel}
	s.mu.Lock()
	s.calls[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.calls, c)
	}()
	err := do(attempt)
	if err != nil && attempt.Err() != nil {
		return context.Cause(attempt)
	}
	return err
}

// heard takes what NATS tells apart from its answers.
func (s *Store) heard(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.calls {
		switch {
		case errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), strconv.Quote(c.subject)):
			c.cancel(fmt.Errorf("%w: %w", store.ErrDenied, err))
		case errors.Is(err, nats.ErrDisconnected):
			c.cancel(nats.ErrDisconnected)
		}
	}
}

// try does a request again as long as what it fails with may pass: servers restart, and have more to do than they can. What is asked may
// have been done already.
func (s *Store) try(ctx context.Context, subject string, do func(context.Context) error) error {
	began := time.Now()
	for pause := firstPause; ; pause = min(2*pause, maxPause) {
		err := s.once(ctx, subject, do)
		if err == nil || ctx.Err() != nil || !passing(err) || time.Since(began) > patience {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func passing(err error) bool {
	if broken := net.Error(nil); errors.As(err, &broken) {
		return true // of a connection that was found broken by writing to it, before its reader has noticed
	}
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrDisconnected, nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return code(err) == errTooMany || code(err) == errClusterNotReady
}

// fail says what failed, and of which kind it is.
func (s *Store) fail(ctx context.Context, what string, err error) error {
	var reader *source.Error
	switch {
	case errors.As(err, &reader):
	case ctx.Err() != nil && !errors.Is(err, ctx.Err()):
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, jetstream.ErrJetStreamNotEnabled),
		errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		err = fmt.Errorf("NATS has no JetStream that answers: %w", err)
	}
	switch code(err) {
	case errAccountFull, errInsufficient, errStorageFull, errStoreFailed:
		err = fmt.Errorf("%w: %w", store.ErrFull, err)
	}
	return fmt.Errorf("store: %s: %s: %w", s.url, what, err)
}
