package server

import (
	"encoding/binary"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
)

const (
	idleSessions = 10_000
	// idleBytes is the most that a session may take that sends nothing, all indices included. ARCHITECTURE states it.
	idleBytes = 1024
)

// heapOfSessions returns what so many bound sessions take of the heap, in bytes for each.
func heapOfSessions(tb testing.TB, n int) float64 {
	tb.Helper()
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	t := newTable(Limits{PerJob: n, PerPrefix: n}.withDefaults())
	for i := range n {
		r := request{
			job: job.ID{byte(i % 16)}, expires: time.Hour, stamp: 1, bytes: 1232,
			from: origin{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 4000)},
		}
		binary.BigEndian.PutUint64(r.short[:], uint64(i)*0x9e3779b97f4a7c15)
		s, reason := t.bind(r, 0)
		if reason != 0 {
			tb.Fatal(reason)
		}
		if _, ok := t.prove(s); !ok {
			tb.Fatal("not proven")
		}
	}
	each := float64(heap()-before) / float64(n)
	if t.count() != n || t.dest(ident.Short{}, 0) == nil {
		tb.Fatal("sessions are missing")
	}
	return each
}

func TestIdleSessionIsSmall(t *testing.T) {
	each := heapOfSessions(t, idleSessions)
	t.Logf("%.0f bytes for each of %d sessions", each, idleSessions)
	if each > idleBytes {
		t.Errorf("%.0f bytes for an idle session, want %d at most", each, idleBytes)
	}
}

func BenchmarkIdleSessions(b *testing.B) {
	var each float64
	for b.Loop() {
		each = heapOfSessions(b, idleSessions)
	}
	b.ReportMetric(each, "bytes/session")
}
