package suite_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/suite"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

// Every way brings the right result, cold and warm, and tells what its functions did, and what that would cost.
func TestDAG(t *testing.T) {
	servertest.Redis(t) // skips if there is none
	servertest.VersityGW(t)
	ways := []string{"fnwire", "lazy", "relay", "redis", "s3", "nats", "wukong3", "wukong3-rate-early-socket-serial-resend"}
	works := []string{"tree, 10ms a task", "vectors of 256 KiB", "tsqr, 256 x 16"}
	set := map[string]string{"functions": "4", "works": "tree,vectors,tsqr", "delays": "10ms", "bytes": "256KiB", "cols": "16", "rows": "64", "reps": "1", "starts": "cold,warm"}
	set["ways"] = "fnwire,lazy,relay,redis,s3,nats,wukong3,wukong3-rate-early-socket-serial-resend"
	byCase := run(t, "dag", set)
	for _, way := range ways {
		for _, work := range works {
			for _, start := range []string{"cold", "warm"} {
				c := byCase[work+", "+start+" "+way]
				if len(c) != 1 {
					t.Errorf("%s, %s, %s: %d records", work, start, way, len(c))
					continue
				}
				r := c[0]
				has(t, r, r.Measured, "done_ms", "gb_seconds", "function_s", "run_s", "dollars")
				started := r.Measured["starts_cold"]
				if runs := count(r.Spans, "run"); runs != len(r.Spans)-count(r.Spans, "send")-count(r.Spans, "receive")-count(r.Spans, "wait")-count(r.Spans, "function") || runs < 7 {
					t.Errorf("%s: %d runs of %+v", r.Case, runs, r.Spans)
				}
				if r.Way != way || r.Work != work+", "+start || len(r.Bill) == 0 || start == "cold" && started != 4 || start == "warm" && started != 0 {
					t.Errorf("%s: %s of %s, %v cold, bill %v", r.Case, r.Way, r.Work, started, r.Bill)
				}
			}
		}
	}
}

// Over fnwire no function takes in more than two vectors, though the result is four levels up, and all of them hand on what has come before it is whole.
func TestDAGPlaced(t *testing.T) {
	set := map[string]string{"functions": "8", "works": "vectors,tsqr", "bytes": "256KiB", "cols": "128", "rows": "128", "reps": "1", "starts": "warm", "ways": "fnwire,last"}
	byCase := run(t, "dag", set)
	for _, work := range []string{"vectors of 256 KiB", "tsqr, 1024 x 128"} {
		for _, way := range []string{"fnwire", "last"} {
			c := byCase[work+", warm "+way]
			if len(c) != 1 {
				t.Fatalf("%s, %s: %d records", work, way, len(c))
			}
			received := make(map[string]int)
			for _, s := range c[0].Spans {
				if s.Kind == "receive" {
					received[s.Row]++
				}
			}
			most := 0
			for _, n := range received {
				most = max(most, n)
			}
			if way == "fnwire" && most != 2 || way == "last" && most < 3 {
				t.Errorf("%s, %s: a function takes in %d", work, way, most)
			}
		}
	}
}

func TestDAGSettings(t *testing.T) {
	for name, bad := range map[string][]string{
		"ways": {"x", "wukong3-x", ""}, "works": {"x", ""}, "starts": {"hot", ""}, "fanin": {"1", "x"}, "functions": {"0"}, "delays": {"-1s"}, "bytes": {"x", "4", "NaN", "1GiB"},
		"cols": {"x", "2000"}, "rows": {"0", "10000000"}, "nat": {"x", ""}, "profile": {"aws-region/1"},
	} {
		for _, value := range bad {
			e, err := suite.Find("dag")
			if err != nil {
				t.Fatal(err)
			}
			set := map[string]string{name: value, "reps": "1"}
			if err := e.Check(t.Context(), suite.Options{Set: set}); !errors.Is(err, suite.ErrSettings) {
				t.Errorf("%v: %v", set, err)
			}
		}
	}
}

func count(spans []results.Span, kind string) int {
	return len(spans) - len(slices.DeleteFunc(slices.Clone(spans), func(s results.Span) bool { return s.Kind == kind }))
}
