package suite

import (
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/worker"
)

// TestJudge: each way to be untrue is found, and nothing else.
func TestJudge(t *testing.T) {
	state := func(o outcome) handedOver {
		return handedOver{
			key: "k", from: "a", to: "b", bytes: 3, digest: "abc", receipt: "abc", outcome: o,
			told: int64(10 * time.Second), within: 10 * time.Second,
		}
	}
	got := func(instance string, at int, path string) work {
		return work{name: "b", instance: instance, Taken: worker.Taken{
			From: "a", Key: "k", Bytes: 3, Digest: "abc", Path: path, At: int64(time.Duration(at) * time.Second),
		}}
	}
	then := func(w work, err string) work {
		w.Accepted, w.Error = true, err
		return w
	}
	changed := func(w work, f func(*work)) work {
		f(&w)
		return w
	}
	for name, c := range map[string]struct {
		s    handedOver
		done []work
		want string // "" is nothing
	}{
		"accepted":                     {state(accepted), []work{got("b1", 9, "direct"), then(got("b1", 9, "direct"), "")}, ""},
		"accepted, the word was lost":  {state(accepted), []work{got("b1", 5, "direct"), got("b2", 9, "direct")}, ""},
		"stored":                       {state(stored), []work{got("b1", 20, viaStore)}, ""},
		"stored, not accepted, again":  {state(stored), []work{got("b1", 20, viaStore), then(got("b1", 20, viaStore), "x"), got("b2", 30, viaStore)}, ""},
		"failed":                       {state(refused), nil, ""},
		"failed, and there":            {state(refused), []work{got("b1", 9, "relay")}, ""},
		"died":                         {handedOver{key: "k", from: "a", to: "b", outcome: died}, nil, ""},
		"a receipt for nothing":        {state(accepted), nil, "has not got it"},
		"a receipt too soon":           {state(accepted), []work{got("b1", 11, "direct")}, "has not got it"},
		"lost":                         {state(stored), nil, "lost"},
		"twice":                        {state(accepted), []work{got("b1", 8, "direct"), got("b1", 9, "relay")}, "b1 got it twice"},
		"twice, link and store":        {state(stored), []work{got("b1", 8, "direct"), then(got("b1", 8, "direct"), ""), got("b1", 9, viaStore)}, "b1 got it twice"},
		"again after the receipt":      {state(accepted), []work{got("b1", 9, "direct"), got("b2", 11, viaStore)}, "b2 got it after its sender"},
		"again after it was removed":   {state(stored), []work{got("b1", 20, viaStore), then(got("b1", 21, viaStore), ""), got("b2", 30, viaStore)}, "b2 got it after b1"},
		"changed":                      {state(refused), []work{changed(got("b1", 9, "direct"), func(w *work) { w.Digest = "abd" })}, "abd"},
		"short":                        {state(refused), []work{changed(got("b1", 9, "direct"), func(w *work) { w.Bytes = 2 })}, "2 bytes"},
		"of somebody else":             {state(refused), []work{changed(got("b1", 9, "direct"), func(w *work) { w.From = "c" })}, "from c"},
		"to somebody else":             {state(refused), []work{changed(got("c1", 9, "direct"), func(w *work) { w.name = "c" })}, "c1 got"},
		"made up":                      {state(refused), []work{changed(got("b1", 9, "direct"), func(w *work) { w.Key = "other" })}, "other"},
		"a receipt for something else": {changedState(state(accepted), func(s *handedOver) { s.receipt = "x" }), []work{got("b1", 9, "direct")}, "receipt has digest"},
		"told late":                    {changedState(state(refused), func(s *handedOver) { s.told = int64(13 * time.Second) }), nil, "after the deadline"},
		"told late, but it was frozen": {changedState(state(refused), func(s *handedOver) { s.told, s.frozen = int64(13*time.Second), 3*time.Second }), nil, ""},
	} {
		v := judge([]handedOver{c.s}, c.done)
		if said := strings.Join(v.wrong, "; "); (said == "") != (c.want == "") || !strings.Contains(said, c.want) {
			t.Errorf("%s: %q, want %q", name, said, c.want)
		}
	}
	v := judge([]handedOver{state(accepted), changedState(state(refused), func(s *handedOver) { s.key = "l" })},
		[]work{got("b1", 5, "direct"), got("b2", 9, "direct"), changed(got("b2", 9, "relay"), func(w *work) { w.Key = "l" })})
	if v.outcomes[accepted] != 1 || v.outcomes[refused] != 1 || v.delivered != 2 || v.again != 1 || v.silent != 1 || len(v.wrong) > 0 {
		t.Errorf("%+v", v)
	}
}

func changedState(s handedOver, f func(*handedOver)) handedOver {
	f(&s)
	return s
}
