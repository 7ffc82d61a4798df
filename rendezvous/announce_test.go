package rendezvous_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/fnwire/fnwire/rendezvous"
)

// A relay whose clock is set right is accepted again at once, whatever became of what it announced before, and announcements that
// are accepted have grown.
func TestClockOfRelayIsSet(t *testing.T) {
	const (
		refused  = "refused"
		accepted = "accepted"
		lost     = "lost" // the answer is
	)
	secret, err := rendezvous.NewRelaySecret("a relay secret of some length")
	if err != nil {
		t.Fatal(err)
	}
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	relay := rendezvous.RelayInfo{ID: "r", Addr: netip.MustParseAddrPort("192.0.2.1:3478")}
	type step struct {
		ahead time.Duration // the relay's clock
		want  string
	}
	for name, steps := range map[string][]step{
		"an hour ahead":              {{want: accepted}, {time.Hour, refused}, {want: accepted}, {want: accepted}},
		"an hour ahead at first":     {{time.Hour, refused}, {time.Hour, refused}, {want: accepted}},
		"an hour ahead, no answer":   {{want: accepted}, {time.Hour, lost}, {want: refused}, {want: accepted}},
		"a little ahead":             {{110 * time.Second, accepted}, {want: accepted}, {want: accepted}},
		"a little ahead, no answer":  {{110 * time.Second, lost}, {want: accepted}, {want: accepted}},
		"set back before the answer": {{want: accepted}, {want: lost}, {-time.Minute, accepted}, {want: accepted}},
	} {
		var issues rendezvous.Issues
		var newest time.Time // that the service has accepted
		for i, s := range steps {
			now := start.Add(time.Duration(i) * rendezvous.AnnounceInterval)
			issued := issues.Next(now.Add(s.ahead))
			sealed, err := secret.SealAnnouncement(rendezvous.Announcement{V: 1, Relay: relay, Issued: issued})
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(sealed)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = secret.OpenAnnouncement(data, now)
			if err == nil && !issued.After(newest) {
				err = rendezvous.ErrStale
			}
			got := accepted
			if err == nil {
				newest = issued
			} else {
				got = refused
			}
			if s.want != lost {
				issues.Answered(err)
				if got != s.want {
					t.Errorf("%s: %d is %s, want %s: %v", name, i, got, s.want, err)
				}
			}
		}
	}
	if at := new(rendezvous.Issues).Next(time.Now()); at.String() != at.Round(0).String() {
		t.Errorf("%v has a monotonic clock, by which times grow that do not", at)
	}
}
