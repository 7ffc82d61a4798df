package fnlib

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// unit is how many blocks are an eighth of the window.
const unit = pullWindow / 8

// testPull is a pull of so many units from so many sources, whose digests are known. Nobody fetches.
func testPull(t *testing.T, units, sources int) *pull {
	p := newPull(t.Context(), &Node{log: slog.New(slog.DiscardHandler), cfg: Config{Name: "me"}}, refInfo{size: int64(units*unit)*blockSize - 1, holders: []string{"a"}}, Auto)
	p.digests = make([]Digest, units*unit)
	p.begin(sources)
	return p
}

// claims lets a source claim until there is nothing for it, and returns what it got.
func (p *pull) claims(source string) (got []claim) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		c, _, ok := p.claimLocked(source, 0)
		if !ok {
			return got
		}
		got = append(got, c)
	}
}

func wantClaims(t *testing.T, what string, got []claim, want ...claim) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %v, want %v", what, got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
}

// bring delivers blocks.
func (p *pull) bring(source string, c claim) {
	for i := range c.count {
		p.deliver(source, "direct", c.first+i, newBlock(1))
	}
	p.unclaim(c)
}

// takes has the application take so many units.
func (p *pull) takes(units int) {
	for range units * unit {
		p.taken()
	}
}

// run is a claim in units.
func run(first, count int) claim { return claim{first: first * unit, count: count * unit} }

// What is claimed stays within the window, goes on in whole runs as the application reads, and is claimed again when it was not delivered.
func TestClaims(t *testing.T) {
	p := testPull(t, 22, 1)
	wantClaims(t, "at first", p.claims("a"), run(0, 4), run(4, 4))
	p.bring("a", run(0, 4))
	p.takes(1)
	wantClaims(t, "room for one", p.claims("a"))
	p.takes(3)
	wantClaims(t, "room for four", p.claims("a"), run(8, 4))
	p.bring("a", run(4, 1))
	p.unclaim(run(5, 3)) // broken off in its middle
	wantClaims(t, "what was lost", p.claims("a"), run(5, 3))
	p.bring("a", run(5, 3))
	p.bring("a", run(8, 4))
	p.takes(6)
	wantClaims(t, "six more", p.claims("a"), run(12, 4))
	p.takes(2)
	p.bring("a", run(12, 4))
	wantClaims(t, "two more", p.claims("a"), run(16, 4))
	p.takes(2)
	wantClaims(t, "the end", p.claims("a"), run(20, 2))
	p.bring("a", run(16, 4))
	p.bring("a", run(20, 2))
	p.takes(8)
	wantClaims(t, "nothing left", p.claims("a"))
	if p.next != 22*unit || len(p.slots) != 0 {
		t.Errorf("at block %d, %d slots", p.next, len(p.slots))
	}
}

// The block that the application waits for is asked for alone if need be.
func TestClaimsWhatIsWaitedFor(t *testing.T) {
	p := testPull(t, 22, 1)
	p.claims("a")
	p.bring("a", run(0, 4))
	p.bring("a", run(4, 4))
	p.takes(8)
	for i := 9 * unit; i < 10*unit; i++ {
		p.slots[i] = &slot{claims: 1, by: "b", since: time.Now()}
	}
	wantClaims(t, "block 8", p.claims("a"), run(8, 1), run(10, 4))
}

// Two sources share the window, and one takes over, once, what the other does not bring within half a second.
func TestSteals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPull(t, 8, 2)
		steal := func(source string) (claim, time.Duration) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.stealLocked(source)
		}
		wantClaims(t, "a and b", p.claims("a"), run(0, 2), run(2, 2), run(4, 2), run(6, 2))
		time.Sleep(stealAfter - time.Millisecond)
		p.deliver("a", "direct", 0, newBlock(1))
		if c, wait := steal("b"); c.count != 0 || wait != time.Millisecond {
			t.Errorf("%v, %v", c, wait)
		}
		time.Sleep(time.Millisecond)
		if c, _ := steal("a"); c.count != 0 {
			t.Errorf("from itself: %v", c)
		}
		want := []claim{{first: 1, count: 2 * unit}, {first: 1 + 2*unit, count: 2 * unit}, {first: 1 + 4*unit, count: 2 * unit}, {first: 1 + 6*unit, count: 2*unit - 1}}
		for _, want := range want {
			if c, _ := steal("b"); c != want {
				t.Errorf("%v, want %v", c, want)
			}
		}
		if c, wait := steal("c"); c.count != 0 || wait != stealAfter {
			t.Errorf("a third time: %v, %v", c, wait)
		}
		p.bring("b", run(1, 1))
		p.bring("a", run(1, 1)) // too late
		if p.from["b"] != unit || p.from["a"] != 1 {
			t.Errorf("from %v", p.from)
		}
		p.unclaim(run(0, 1))
		p.unclaim(run(2, 1))
		p.unclaim(run(2, 1))
		wantClaims(t, "what both have failed to bring", p.claims("c"), run(2, 1))
	})
}

// withLead gives a pull a lead, b.
func withLead(p *pull) (left *bool) {
	left = new(bool)
	p.lead = newLead("b", 0, 2, func() { *left = true })
	return left
}

// ticks lets so many pass, and has the lead give a sign before each.
func (p *pull) ticks(n int, s sign) {
	for range n {
		if s != signNone {
			p.hear("b", s)
		}
		time.Sleep(stillEvery)
		p.mu.Lock()
		p.tickLocked()
		p.mu.Unlock()
	}
}

// While there is a lead, holders are asked for what it has let go, for a few blocks when it has been silent for a moment, and for all when it has been for long.
func TestClaimsBehindALead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPull(t, 22, 1)
		left := withLead(p)
		waits := func(want time.Duration) {
			t.Helper()
			p.mu.Lock()
			defer p.mu.Unlock()
			if _, wait, ok := p.claimLocked("a", 0); ok || wait != want {
				t.Errorf("waits %v, %v; want %v", wait, ok, want)
			}
		}
		waits(leadPatience)
		wantClaims(t, "the lead", p.claims("b"), run(0, 4), run(4, 4))
		if err := p.passed(run(0, 4), unit); err != nil {
			t.Error(err)
		}
		p.unclaim(run(0, 4))
		time.Sleep(leadPatience - time.Millisecond)
		wantClaims(t, "what it has let go", p.claims("a"), claim{first: 0, count: leadRun}, claim{first: leadRun, count: leadRun})
		wantClaims(t, "what it has yet", p.claims("b"), run(1, 3))
		waits(time.Millisecond)
		p.deliver("b", "direct", 4*unit, newBlock(1))
		waits(leadPatience)
		p.bring("b", run(1, 3))
		p.bring("b", run(4, 4))
		p.ticks(1000, signNone) // it owes nothing
		waits(leadPatience)
		p.bring("a", run(0, 1))
		p.takes(8)
		wantClaims(t, "the lead goes on", p.claims("b"), run(8, 4), run(12, 4))
		p.ticks(1, signNone)
		waits(stealAfter)
		p.unclaim(run(12, 4))
		wantClaims(t, "a little", p.claims("a")[:1], claim{first: 12 * unit, count: leadRun})
		p.ticks(leadSilent-1, signNone)
		if !*left || p.lead != nil {
			t.Error("a lead that is silent is not left")
		}
		if err := p.passed(run(8, 4), 9*unit); err == nil {
			t.Error("who was left is heard")
		}
	})
}

// A lead of which no link comes up has not the word for ever, though nothing was asked of it yet.
func TestLeadWithoutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPull(t, 22, 1)
		withLead(p)
		p.unclaim(run(0, 4)) // the request that was answered by its name
		time.Sleep(leadPatience)
		if len(p.claims("a")) == 0 {
			t.Error("the holder may not be asked")
		}
		if p.ticks(leadSilent, signNone); p.lead != nil {
			t.Error("it is not left")
		}
	})
}

// A lead that says again and again that it waits is waited for, but not for ever; one that sends a block slowly is.
func TestLeadIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for s, want := range map[sign]int{signNone: leadSilent, signWaits: leadStuck + 2*leadBehind, signBytes: 1000} {
			p := testPull(t, 22, 1)
			withLead(p)
			p.claims("b")
			if p.ticks(want-1, s); p.lead == nil {
				t.Errorf("%d: left too soon", s)
			}
			if p.ticks(1, s); (p.lead == nil) != (s != signBytes) {
				t.Errorf("%d: %v", s, p.lead)
			}
		}
	})
}

// A lead that is too far ahead again and again, or says so of blocks that it was not asked for, is left.
func TestLeadIsTooFarAhead(t *testing.T) {
	for name, passes := range map[string][][2]int{"again": {{0, 1}, {1, 2}, {2, 3}}, "not so": {{1, 1}}, "beyond": {{0, 22*unit + 1}}} {
		p := testPull(t, 22, 1)
		withLead(p)
		for i, pass := range passes {
			err := p.passed(claim{first: pass[0], count: 1}, uint32(pass[1]))
			if last := i == len(passes)-1; last != (err != nil) {
				t.Errorf("%s: %d: %v", name, i, err)
			}
		}
	}
}

// Who only gets a state itself is no holder, whatever a ref says of it, and a lead is named once.
func TestNoHolder(t *testing.T) {
	p := testPull(t, 22, 1)
	for _, status := range []byte{gotComing, gotPassed} {
		var s *statusErr
		if err := p.read("a", nil, claim{digests: true}, gotHeader{status: status}, nil); !errors.As(err, &s) || !errors.Is(err, ErrNotFound) {
			t.Errorf("status %d: %v", status, err)
		}
	}
	if err := p.read("a", nil, run(0, 1), gotHeader{size: uint64(p.ref.size), lead: "b"}, nil); !errors.Is(err, errWire) {
		t.Errorf("a lead again: %v", err)
	}
}

// What the lead has let go it is not asked for when the holder is slow with it; and when the lead is far ahead, the holder is asked for as much as without one.
func TestLeadIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPull(t, 40, 1)
		withLead(p)
		p.lead.first = 9 * unit
		wantClaims(t, "far ahead", p.claims("a"), run(0, 4), run(4, 4))
		time.Sleep(stealAfter)
		p.mu.Lock()
		defer p.mu.Unlock()
		if c, _ := p.stealLocked("b"); c.count > 0 {
			t.Errorf("the lead steals %v", c)
		}
	})
}

// Who is before in the chain has nothing from who came after, since those wait for it.
func TestNoRing(t *testing.T) {
	p := testPull(t, 2, 1)
	p.place = 2
	p.claims("a")
	p.bring("a", run(0, 2))
	for place, want := range map[uint32]bool{0: false, 1: false, 2: false, 3: true} {
		b, err := p.blockFor(0, place, nil, nil)
		if (err == nil) != want {
			t.Errorf("place %d: %v", place, err)
		}
		if b != nil {
			b.release()
		}
	}
}
