package faas

import (
	"errors"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/lab"
)

// Which host an event goes to: each case has one better than the case before.
func TestPick(t *testing.T) {
	a, b := &function{Function: Function{Name: "a", Concurrency: 3}}, &function{Function: Function{Name: "b"}}
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	inst := func(f *function, s state, used int) *slot {
		return &slot{inst: &instance{fn: f, state: s, used: at(used)}}
	}
	last := func(n int) int { return n - 1 }
	taken := inst(a, idle, 9)
	taken.taken = true
	pool := []*slot{inst(a, busy, 1), taken}
	if _, err := pick(pool, a, last); !errors.Is(err, errBusy) || !errors.Is(err, ErrThrottled) {
		t.Errorf("all are busy: %v", err)
	}
	for i, s := range []*slot{
		inst(b, settling, 2), inst(b, idle, 4), inst(b, idle, 3), inst(b, ending, 1), {}, {}, inst(a, settling, 1), inst(a, idle, 2), inst(a, idle, 3),
	} {
		pool = append(pool, s)
		a.active = 0
		got, err := pick(pool, a, last)
		if err != nil || got != s || !got.taken || a.active != 1 {
			t.Fatalf("case %d: %+v, %v", i, got, err)
		}
		got.taken = false
	}
	a.active = 3
	if _, err := pick(pool, a, last); !errors.Is(err, errReserved) || !errors.Is(err, ErrThrottled) {
		t.Errorf("more than the function may have: %v", err)
	}
	b.NAT = lab.CGN
	if _, err := pick(pool, b, last); !errors.Is(err, errBusy) {
		t.Errorf("no host behind such a NAT: %v", err)
	}
	pool[6].host.NAT = lab.CGN
	if got, err := pick(pool, b, last); err != nil || got != pool[6] {
		t.Errorf("behind such a NAT: %+v, %v", got, err)
	}
}

func TestBill(t *testing.T) {
	v := Invocation{MemoryMB: 512}
	v.bill(120*time.Millisecond+400*time.Microsecond, 12*time.Millisecond+601*time.Microsecond)
	if v.BilledMS != 134 || v.GBSeconds != 0.067 {
		t.Errorf("%+v", v)
	}
	if v.bill(0, 5*time.Millisecond); v.BilledMS != 5 {
		t.Errorf("%+v", v)
	}
}
