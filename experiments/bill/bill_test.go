package bill_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fnwire/fnwire/experiments/bill"
	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/fnlib/store"
	"github.com/fnwire/fnwire/fnlib/store/s3"
	"github.com/fnwire/fnwire/internal/testserver/servertest"
)

func Example() {
	prices := bill.Default()
	// A function of 1 GB worked for 100 ms, waited for S3 for 60 ms, and put 1 MiB there, which another got.
	u := bill.Use{Way: "s3", Invocations: 2, Work: bill.GBSeconds(1024, 100*time.Millisecond), Wait: bill.GBSeconds(1024, 60*time.Millisecond)}
	u.Puts, u.Gets = bill.S3Requests(1 << 20)
	for _, c := range prices.Charges(u) {
		fmt.Printf("%-22s for %-4s %6.2f %-7s %5.2f millionths of a dollar\n", c.Item, c.For, c.Quantity, c.Unit, 1e6*c.Dollars)
	}
	fmt.Printf("a cache node is cheaper from %.0f such hand-overs an hour on\n", prices.BreakEven(bill.Use{Cache: time.Hour}, u.Puts, u.Gets))
	// Output:
	// function time          for work   0.10 GB-s     1.67 millionths of a dollar
	// function time, waiting for s3     0.06 GB-s     1.00 millionths of a dollar
	// function requests      for work   2.00 request  0.40 millionths of a dollar
	// S3 PUT                 for s3     1.00 request  5.00 millionths of a dollar
	// S3 GET                 for s3     1.00 request  0.40 millionths of a dollar
	// a cache node is cheaper from 27407 such hand-overs an hour on
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-12*max(math.Abs(a), math.Abs(b)) }

// TestCharges holds every item against the price list by hand.
func TestCharges(t *testing.T) {
	got := bill.Default().Charges(bill.Use{}, bill.Use{
		Way: "relay", Invocations: 1_000_000, Work: 3, Start: 2, Wait: 1, Puts: 1000, Gets: 1000,
		Cache: time.Hour, Relay: time.Hour, Rendezvous: 30 * time.Minute, Direct: 5e9, Public: 2e9, Zones: 1e9, Regions: 1e9,
	})
	want := []results.Charge{
		{Item: "function time", For: "work", Quantity: 3, Unit: "GB-s", Dollars: 0.0000500001},
		{Item: "function time", For: "start", Quantity: 2, Unit: "GB-s", Dollars: 0.0000333334},
		{Item: "function time, waiting", For: "relay", Quantity: 1, Unit: "GB-s", Dollars: 0.0000166667},
		{Item: "function requests", For: "work", Quantity: 1e6, Unit: "request", Dollars: 0.20},
		{Item: "S3 PUT", For: "relay", Quantity: 1000, Unit: "request", Dollars: 0.005},
		{Item: "S3 GET", For: "relay", Quantity: 1000, Unit: "request", Dollars: 0.0004},
		{Item: "cache node", For: "relay", Quantity: 1, Unit: "hour", Dollars: 0.148},
		{Item: "relay instance", For: "relay", Quantity: 1, Unit: "hour", Dollars: 0.0816},
		{Item: "rendezvous instance", For: "relay", Quantity: 0.5, Unit: "hour", Dollars: 0.0408},
		{Item: "public addresses", For: "relay", Quantity: 1.5, Unit: "hour", Dollars: 0.0075},
		{Item: "transfer at public addresses", For: "relay", Quantity: 2, Unit: "GB", Dollars: 0.02},
		{Item: "transfer between zones", For: "relay", Quantity: 2, Unit: "GB", Dollars: 0.02},
		{Item: "transfer between regions", For: "relay", Quantity: 1, Unit: "GB", Dollars: 0.02},
		{Item: "transfer between functions (unverified)", For: "relay", Quantity: 5, Unit: "GB"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d items, want %d: %+v", len(got), len(want), got)
	}
	var sum float64
	for i, w := range want {
		g := got[i]
		if sum += w.Dollars; g.Item != w.Item || g.For != w.For || g.Unit != w.Unit || !near(g.Quantity, w.Quantity) || !near(g.Dollars, w.Dollars) {
			t.Errorf("%+v, want %+v", g, w)
		}
	}
	if total := bill.Total(got); !near(total, sum) {
		t.Errorf("%v in all, want %v", total, sum)
	}
}

// TestS3Requests counts those of the driver, before a real server.
func TestS3Requests(t *testing.T) {
	server := servertest.VersityGW(t)
	at, err := url.Parse("http://" + server.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var puts, gets atomic.Int64
	proxy := httputil.NewSingleHostReverseProxy(at)
	counter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPut, http.MethodPost:
			puts.Add(1)
		case http.MethodGet, http.MethodHead:
			gets.Add(1)
		}
		proxy.ServeHTTP(w, r)
	}))
	defer counter.Close()
	s, err := s3.Open(t.Context(), strings.Replace(server.URL, at.String(), counter.URL, 1))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, n := range []int64{0, 1, 64 << 10, 8<<20 - 1, 8 << 20, 8<<20 + 1, 20 << 20} {
		puts.Store(0)
		gets.Store(0)
		if err := s.Put(t.Context(), "k", io.LimitReader(zeros{}, n), store.PutOptions{Size: n}); err != nil {
			t.Fatal(err)
		}
		in, _, err := s.Get(t.Context(), "k", 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.Copy(io.Discard, in)
		if err := errors.Join(err, in.Close(), s.Delete(t.Context(), "k")); got != n || err != nil {
			t.Fatalf("%d of %d bytes, %v", got, n, err)
		}
		if p, g := bill.S3Requests(n); puts.Load() != int64(p) || gets.Load() != int64(g) {
			t.Errorf("%d bytes: %d and %d requests, want %d and %d", n, puts.Load(), gets.Load(), p, g)
		}
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestParse: nothing may be missing, twice, unknown, or without a source.
func TestParse(t *testing.T) {
	if p := bill.Default(); p.Region != "us-east-1" || p.Date.IsZero() || p.Of(bill.S3Put) <= p.Of(bill.S3Get) {
		t.Errorf("%+v", p)
	}
	good := string(bill.File)
	first, _, _ := strings.Cut(good, "}, {")
	after := strings.TrimPrefix(good, first)
	for what, change := range map[string][2]string{
		"no JSON":           {"{", "["},
		"unknown field":     {`"region"`, `"place": "x", "region"`},
		"wrong date":        {"2026-11-26", "26.11.2026"},
		"no region":         {"us-east-1", ""},
		"unknown price":     {"s3-put", "s4-put"},
		"price twice":       {"s3-put", "s3-get"},
		"price missing":     {after, "}]}"},
		"wrong unit":        {`"per": "request"`, `"per": "hour"`},
		"negative":          {"0.0816", "-0.0816"},
		"costs nothing":     {"0.0816", "0"},
		"no number":         {"0.0816", `"0.0816"`},
		"not said what":     {"a public IPv4 address", ""},
		"no source":         {"c3x.dev/blog/s3-request-fees-explained: $0.005 for 1,000", ""},
		"trust of no kind":  {"assumed", "probably"},
		"something follows": {good, good + "{}"},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Errorf("%s: nothing was changed", what)
		}
		if p, err := bill.Parse([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "bill: prices: ") {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
	}
}
