package dag

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/open"
)

// EnvWay is the environment variable that has the way by which a function hands over: one of Ways.
const EnvWay = "DAG_WAY"

// The ways.
const (
	Fnwire = "fnwire"  // by links made ahead; small outputs stay on the relay
	Last   = "last"    // as Fnwire, but at every fan-in the last to arrive goes on
	Auto   = "auto"    // as Fnwire, but all links seek a direct path
	Lazy   = "lazy"    // as Fnwire, but links are made when there is something to send
	Relay  = "relay"   // as Fnwire, and all stay on the relay
	Store  = "store"   // by the store of fnlib.EnvStore
	Wukong = "wukong3" // as EnvWukong says
)

// EnvWukong is the environment variable that has a WukongConfig as JSON.
const EnvWukong = "DAG_WUKONG3"

const (
	joinWithin = 8 * time.Second        // at init, for which Lambda allows 10 s
	window     = 96 << 10               // somewhat more than is under way on a line of 75 MB/s in 1 ms
	boardConns = 8                      // kept: as many arrivals wait at a time, each on one of them
	grace      = 400 * time.Millisecond // after SIGTERM, since Lambda kills 500 ms later
)

// Function is a function that takes Events. It handles one at a time, as Lambda has it.
type Function struct {
	name  string
	hand  func(context.Context) (handOff, error) // for one event
	http  *http.Client
	node  *fnlib.Node // nil: it has not joined
	store store.Store // nil: it has none
}

// NewFunction makes what the environment says, and connects it: it has EnvWay, and what fnlib.FromEnv reads but for the name, or fnlib.EnvStore
// with what that store needs.
func NewFunction(ctx context.Context) (f *Function, err error) {
	ctx, cancel := context.WithTimeout(ctx, joinWithin)
	defer cancel()
	f = &Function{name: "f-" + strings.ToLower(rand.Text()), http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: boardConns}}}
	way := os.Getenv(EnvWay)
	switch way {
	case Fnwire, Last, Auto, Lazy, Relay:
		cfg := fnlib.FromEnv()
		cfg.Name, cfg.Grace, cfg.Window = f.name, grace, window
		if cfg.EarlyBytes = 0; way == Fnwire || way == Last {
			cfg.EarlyBytes = fnlib.MaxEarly
		}
		if f.node, err = fnlib.Join(ctx, cfg); err != nil {
			return nil, fmt.Errorf("dag: %w", err)
		}
		small := map[string]int64{Auto: 0, Relay: math.MaxInt64}
		o := overFnwire{node: f.node, ahead: way != Lazy, small: Small, early: int64(cfg.EarlyBytes)}
		if n, ok := small[way]; ok {
			o.small = n
		}
		f.hand = always(o)
	case Store:
		if f.store, err = open.URL(ctx, os.Getenv(fnlib.EnvStore)); err != nil {
			return nil, fmt.Errorf("dag: %w", err)
		}
		f.hand = always(overStore{f.store})
	case Wukong:
		var c WukongConfig
		if err := json.Unmarshal([]byte(os.Getenv(EnvWukong)), &c); err != nil {
			return nil, fmt.Errorf("dag: %s: %w", EnvWukong, err)
		}
		f.hand = c.open
	default:
		return nil, fmt.Errorf("dag: %s is %q: want %s, %s, %s, %s, %s, %s or %s", EnvWay, way, Fnwire, Last, Auto, Lazy, Relay, Store, Wukong)
	}
	return f, nil
}

// always is a hand-off for all events.
func always(h handOff) func(context.Context) (handOff, error) {
	return func(context.Context) (handOff, error) { return h, nil }
}

// Handle runs an event. Errors of tasks and hand-overs have been told the board, if that can be reached.
func (f *Function) Handle(ctx context.Context, e Event) error {
	if e.Schedule == nil || len(e.Schedule.Tasks) > MaxTasks {
		return errors.New("dag: an event without a schedule")
	}
	began := time.Now()
	h, err := f.hand(ctx)
	if err != nil {
		return fmt.Errorf("dag: %w", err)
	}
	x := &executor{Event: e, name: f.name, board: board{e.Board, f.http}, hand: h}
	return x.run(ctx, began)
}

// Close leaves the job.
func (f *Function) Close() error {
	f.http.CloseIdleConnections()
	var err error
	if f.node != nil {
		err = f.node.Close()
	}
	if f.store != nil {
		err = errors.Join(err, f.store.Close())
	}
	return err
}
