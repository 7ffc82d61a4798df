package rendezvous_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Fixed keys and times, so that every byte of a message is known.
var goldenTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func goldenKey(t testing.TB) job.Key {
	t.Helper()
	k, err := job.ParseKey("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func goldenIdentity(t testing.TB, seed byte) ident.Identity {
	t.Helper()
	id, err := ident.FromEd25519(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func goldenHello(t testing.TB) rendezvous.Hello {
	t.Helper()
	return rendezvous.Hello{
		Job: goldenKey(t).ID(), Kind: rendezvous.KindAnswer, FromName: "map-3", FromPeer: goldenIdentity(t, 1).Peer.String(),
		FromEpoch: 7, ToName: "reduce_0", ToPeer: goldenIdentity(t, 2).Peer.String(), Seq: 4, Time: goldenTime, InReplyTo: 3,
		Class: rendezvous.ClassDirect, Nonce: [16]byte{1, 2, 3}, Relay: "r1", RelayAddr: netip.MustParseAddrPort("203.0.113.9:3478"),
		Candidates: []rendezvous.Candidate{
			{Addr: netip.MustParseAddrPort("10.0.0.1:4000"), Kind: "host"},
			{Addr: netip.MustParseAddrPort("[2001:db8::1]:4000"), Kind: "srflx"},
		},
	}
}

func goldenMessages(t testing.TB) map[string]any {
	t.Helper()
	key, a := goldenKey(t), goldenIdentity(t, 1)
	env, err := rendezvous.Seal(key, goldenHello(t))
	if err != nil {
		t.Fatal(err)
	}
	symmetric := goldenHello(t)
	symmetric.NAT = &rendezvous.NAT{Mapping: 3, Step: -1, Public: netip.MustParseAddrPort("198.51.100.7:4000")}
	envNAT, err := rendezvous.Seal(key, symmetric)
	if err != nil {
		t.Fatal(err)
	}
	joining := goldenHello(t)
	joining.Kind, joining.FromEpoch, joining.ToPeer, joining.InReplyTo, joining.Relay = rendezvous.KindOffer, 0, "", 0, ""
	joining.RelayAddr, joining.Lost = netip.AddrPort{}, rendezvous.Nonce{6}
	joining.Flight = [][]byte{[]byte("first packet"), []byte("second packet")}
	envJoining, err := rendezvous.Seal(key, joining)
	if err != nil {
		t.Fatal(err)
	}
	early, said := goldenHello(t), goldenHello(t)
	early.Kind, said.Kind, said.Said = rendezvous.KindEarly, rendezvous.KindSaid, []byte("sealed word")
	envEarly, err := rendezvous.Seal(key, early)
	if err != nil {
		t.Fatal(err)
	}
	envEarly.Early = []byte("sealed state")
	envSaid, err := rendezvous.Seal(key, said)
	if err != nil {
		t.Fatal(err)
	}
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "map-3", Peer: a.Peer.String(), Issued: goldenTime, Nonce: [16]byte{9}}
	relay := rendezvous.RelayInfo{
		ID: "r1", Addr: netip.MustParseAddrPort("203.0.113.9:3478"),
		STUN: []netip.AddrPort{netip.MustParseAddrPort("203.0.113.9:3478"), netip.MustParseAddrPort("203.0.113.9:3479")},
	}
	minted := relay
	minted.Token, minted.Expires = []byte("token"), goldenTime
	sign := func(verb string, body any) rendezvous.Request {
		r, err := rendezvous.SignRequest(verb, key.ID(), body, key.Signer(), a.Ed25519)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	secret, err := rendezvous.NewRelaySecret("golden relay secret")
	if err != nil {
		t.Fatal(err)
	}
	ann, err := secret.SealAnnouncement(rendezvous.Announcement{V: 1, Relay: relay, Issued: goldenTime, Nonce: [16]byte{5}})
	if err != nil {
		t.Fatal(err)
	}
	annReply, err := secret.SealReply(rendezvous.AnnounceReply{TokenKey: bytes.Repeat([]byte{3}, 32), TTLMS: 30000}, ann)
	if err != nil {
		t.Fatal(err)
	}
	overTLS := relay
	overTLS.HTTPS, overTLS.CertSHA256 = "relay.example.org:443", bytes.Repeat([]byte{4}, 32)
	annTLS, err := secret.SealAnnouncement(rendezvous.Announcement{V: 1, Relay: overTLS, Issued: goldenTime, Nonce: [16]byte{5}})
	if err != nil {
		t.Fatal(err)
	}
	member := rendezvous.Member{Name: "map-3", Peer: a.Peer.String(), Epoch: 7}
	return map[string]any{
		"envelope":       env,
		"envelope_nat":   envNAT,
		"join":           sign(rendezvous.VerbJoin, rendezvous.JoinRequest{Head: head, Exclusive: true, Epoch: 7}),
		"join_offers":    sign(rendezvous.VerbJoin, rendezvous.JoinRequest{Head: head, Offers: []rendezvous.Envelope{envJoining}}),
		"renew":          sign(rendezvous.VerbRenew, rendezvous.RenewRequest{Head: head, Epoch: 7, Seen: 2}),
		"renew_hard":     sign(rendezvous.VerbRenew, rendezvous.RenewRequest{Head: head, Epoch: 7, Hard: 9}),
		"renew_tag":      sign(rendezvous.VerbRenew, rendezvous.RenewRequest{Head: head, Epoch: 7, RelaysTag: "cmVsYXlzIGFuZCB0"}),
		"leave":          sign(rendezvous.VerbLeave, rendezvous.RenewRequest{Head: head, Epoch: 7}),
		"offer":          sign(rendezvous.VerbOffer, rendezvous.OfferRequest{Head: head, Epoch: 7, Envelope: env}),
		"offer_early":    sign(rendezvous.VerbOffer, rendezvous.OfferRequest{Head: head, Epoch: 7, Envelope: envEarly, Early: envEarly.Early}),
		"lookup":         sign(rendezvous.VerbLookup, rendezvous.NameRequest{Head: head}),
		"wait":           sign(rendezvous.VerbWait, rendezvous.NameRequest{Head: head, TimeoutMS: 50000}),
		"list":           sign(rendezvous.VerbList, rendezvous.NameRequest{Head: rendezvous.Head{V: 1, Job: key.ID(), Issued: goldenTime}}),
		"join_reply":     rendezvous.JoinReply{Epoch: 7, LeaseMS: 30000, Relays: []rendezvous.RelayInfo{minted}, Parked: []rendezvous.Envelope{env}, ParkedTo: 3},
		"renew_reply":    rendezvous.RenewReply{Epoch: 7, LeaseMS: 30000, Hard: 9},
		"renew_same":     rendezvous.RenewReply{Epoch: 7, LeaseMS: 30000, RelaysTag: "cmVsYXlzIGFuZCB0"},
		"refusal":        rendezvous.Reply{Error: rendezvous.Refuse(rendezvous.CodeFenced, "a newer instance took %q", "map-3")},
		"offer_reply":    rendezvous.OfferReply{Delivered: true, Peer: a.Peer.String(), Epoch: 7},
		"offer_asleep":   rendezvous.OfferReply{Wake: rendezvous.WakeCalled},
		"lookup_reply":   rendezvous.LookupReply{Member: &member},
		"list_reply":     rendezvous.ListReply{Members: []rendezvous.Member{member}, More: true},
		"inbox_envelope": rendezvous.Inbox{V: 1, Type: rendezvous.InboxEnvelope, Envelope: &env},
		"inbox_early":    rendezvous.Inbox{V: 1, Type: rendezvous.InboxEnvelope, Envelope: &envEarly, Early: envEarly.Early},
		"inbox_said":     rendezvous.Inbox{V: 1, Type: rendezvous.InboxEnvelope, Envelope: &envSaid},
		"inbox_fenced":   rendezvous.Inbox{V: 1, Type: rendezvous.InboxFenced, Epoch: 8},
		"inbox_relays":   rendezvous.Inbox{V: 1, Type: rendezvous.InboxRelays},
		"inbox_spread":   rendezvous.Inbox{V: 1, Type: rendezvous.InboxRelays, SpreadMS: 1500},
		"inbox_ask":      rendezvous.Inbox{V: 1, Type: rendezvous.InboxAsk, From: a.Peer.String()},
		"inbox_wake":     rendezvous.Inbox{V: 1, Type: rendezvous.InboxWake, Name: "reduce_0", Wake: rendezvous.WakeFailed + "answered 410 Gone"},
		"ask_reply":      rendezvous.LinkedReply{V: 1, Linked: true},
		"announce":       ann,
		"announce_https": annTLS,
		"announce_reply": annReply,
	}
}

// TestGolden holds every message to the bytes that other versions send and expect. To change the
// protocol on purpose, delete the file and run the test twice.
func TestGolden(t *testing.T) {
	for name, msg := range goldenMessages(t) {
		t.Run(name, func(t *testing.T) {
			got, err := json.Marshal(msg)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "golden", name+".json")
			want, err := os.ReadFile(path)
			if errors.Is(err, os.ErrNotExist) {
				if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
				t.Fatalf("%s was missing and has been written", path)
			}
			if err != nil {
				t.Fatal(err)
			}
			if string(got)+"\n" != string(want) {
				t.Errorf("%s\n got %s\nwant %s", name, got, want)
			}
		})
	}
}

// TestGoldenOpens proves that the recorded bytes are also accepted.
func TestGoldenOpens(t *testing.T) {
	key := goldenKey(t)
	read := func(name string, into any) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", "golden", name+".json"))
		if err == nil && into != nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	var e rendezvous.Envelope
	read("envelope", &e)
	h, err := rendezvous.OpenAt(key, e, rendezvous.Self{Name: "reduce_0", Peer: goldenIdentity(t, 2).Peer}, goldenTime)
	if err != nil || h.Seq != 4 || h.Nonce != [16]byte{1, 2, 3} || len(h.Candidates) != 2 {
		t.Errorf("envelope: %+v, %v", h, err)
	}
	var j rendezvous.JoinRequest
	if err := rendezvous.ParseRequest(rendezvous.VerbJoin, key.ID(), read("join", nil), goldenTime, &j, &j.Head); err != nil || !j.Exclusive {
		t.Errorf("join: %+v, %v", j, err)
	}
	secret, err := rendezvous.NewRelaySecret("golden relay secret")
	if err != nil {
		t.Fatal(err)
	}
	if a, _, err := secret.OpenAnnouncement(read("announce", nil), goldenTime); err != nil || a.Relay.ID != "r1" {
		t.Errorf("announcement: %+v, %v", a, err)
	}
}

// TestOpenJoining: an offer that went with a join has the epoch that the service wrote beside it.
func TestOpenJoining(t *testing.T) {
	key := goldenKey(t)
	h := goldenHello(t)
	h.Kind, h.FromEpoch, h.ToPeer = rendezvous.KindOffer, 0, ""
	e, err := rendezvous.Seal(key, h)
	if err != nil {
		t.Fatal(err)
	}
	e.FromEpoch = 9
	self := rendezvous.Self{Name: "reduce_0", Peer: goldenIdentity(t, 2).Peer}
	if got, err := rendezvous.OpenAt(key, e, self, goldenTime); err != nil || got.FromEpoch != 9 || !got.Joining {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	key, self := goldenKey(t), rendezvous.Self{Name: "reduce_0", Peer: goldenIdentity(t, 2).Peer}
	seal := func(k job.Key, change func(*rendezvous.Hello)) rendezvous.Envelope {
		h := goldenHello(t)
		h.Job = k.ID()
		change(&h)
		e, err := rendezvous.SealUnchecked(k, h)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	nothing := func(*rendezvous.Hello) {}
	tamper := func(change func(*rendezvous.Envelope)) rendezvous.Envelope {
		e := seal(key, nothing)
		change(&e)
		return e
	}
	many := make([]rendezvous.Candidate, rendezvous.MaxCandidates+1)
	for i := range many {
		many[i] = rendezvous.Candidate{Addr: netip.MustParseAddrPort("192.0.2.1:1"), Kind: "host"}
	}
	candidate := func(s string) func(*rendezvous.Hello) {
		return func(h *rendezvous.Hello) {
			h.Candidates = []rendezvous.Candidate{{Addr: netip.MustParseAddrPort(s), Kind: "host"}}
		}
	}
	for name, c := range map[string]struct {
		env  rendezvous.Envelope
		want string
	}{
		"mac":               {tamper(func(e *rendezvous.Envelope) { e.MAC[0] ^= 1 }), "not sealed"},
		"no mac":            {tamper(func(e *rendezvous.Envelope) { e.MAC = nil }), "not sealed"},
		"body":              {tamper(func(e *rendezvous.Envelope) { e.Body = strings.Replace(e.Body, "10.0.0.1", "10.0.0.2", 1) }), "not sealed"},
		"kind outside":      {tamper(func(e *rendezvous.Envelope) { e.Kind = rendezvous.KindOffer }), "not sealed"},
		"version":           {tamper(func(e *rendezvous.Envelope) { e.V = 2 }), "version"},
		"peer outside":      {tamper(func(e *rendezvous.Envelope) { e.FromPeer = self.Peer.String() }), "sender outside"},
		"name outside":      {tamper(func(e *rendezvous.Envelope) { e.FromName = "x" }), "sender outside"},
		"epoch outside":     {tamper(func(e *rendezvous.Envelope) { e.FromEpoch++ }), "sender outside"},
		"addressee outside": {tamper(func(e *rendezvous.Envelope) { e.ToName = "x" }), "addressee"},
		"job outside":       {tamper(func(e *rendezvous.Envelope) { e.Job[0] ^= 1 }), "another job"},
		"other job key":     {seal(job.NewKey(), nothing), "not sealed"},
		"other job inside":  {seal(key, func(h *rendezvous.Hello) { h.Job[0] ^= 1 }), "another job"},
		"other name":        {seal(key, func(h *rendezvous.Hello) { h.ToName = "other" }), "another name"},
		"other instance":    {seal(key, func(h *rendezvous.Hello) { h.ToPeer = goldenIdentity(t, 3).Peer.String() }), "another instance"},
		"own":               {seal(key, func(h *rendezvous.Hello) { h.FromPeer = self.Peer.String() }), "this very instance"},
		"old":               {seal(key, func(h *rendezvous.Hello) { h.Time = goldenTime.Add(-11 * time.Minute) }), "at most 10m"},
		"future":            {seal(key, func(h *rendezvous.Hello) { h.Time = goldenTime.Add(11 * time.Minute) }), "at most 10m"},
		"illegal name":      {seal(key, func(h *rendezvous.Hello) { h.FromName = "a.b" }), "only letters"},
		"kind":              {seal(key, func(h *rendezvous.Hello) { h.Kind = "greeting" }), "kind"},
		"class":             {seal(key, func(h *rendezvous.Hello) { h.Class = 3 }), "class"},
		"answer to nobody":  {seal(key, func(h *rendezvous.Hello) { h.ToPeer = "" }), "nobody"},
		"not a peer":        {seal(key, func(h *rendezvous.Hello) { h.FromPeer = "nobody" }), "peer ID"},
		"17 candidates":     {seal(key, func(h *rendezvous.Hello) { h.Candidates = many }), "17 candidates"},
		"long flight":       {seal(key, func(h *rendezvous.Hello) { h.Flight = [][]byte{make([]byte, rendezvous.MaxFlight+1)} }), "flight"},
		"many packets":      {seal(key, func(h *rendezvous.Hello) { h.Flight = make([][]byte, 5) }), "flight"},
		"answer without epoch": {tamper(func(e *rendezvous.Envelope) {
			*e = seal(key, func(h *rendezvous.Hello) { h.FromEpoch = 0 })
			e.FromEpoch = 8
		}), "sender outside"},
		"multicast":        {seal(key, candidate("224.0.0.1:1")), "candidate"},
		"broadcast":        {seal(key, candidate("255.255.255.255:1")), "candidate"},
		"mapped broadcast": {seal(key, candidate("[::ffff:255.255.255.255]:1")), "candidate"},
		"unspecified":      {seal(key, candidate("0.0.0.0:1")), "candidate"},
		"port 0":           {seal(key, candidate("192.0.2.1:0")), "candidate"},
		"zone":             {seal(key, candidate("[fe80::1%eth0]:1")), "candidate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := rendezvous.OpenAt(key, c.env, self, goldenTime)
			if !errors.Is(err, rendezvous.ErrEnvelope) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one about %q", err, c.want)
			}
		})
	}
	if _, err := rendezvous.OpenAt(key, seal(key, nothing), self, goldenTime.Add(9*time.Minute)); err != nil {
		t.Errorf("a parked envelope of nine minutes: %v", err)
	}
}

func TestSealRefuses(t *testing.T) {
	for name, change := range map[string]func(*rendezvous.Hello){
		"other job":    func(h *rendezvous.Hello) { h.Job[0] ^= 1 },
		"illegal name": func(h *rendezvous.Hello) { h.ToName = "*" },
		"kind":         func(h *rendezvous.Hello) { h.Kind = "" },
	} {
		h := goldenHello(t)
		change(&h)
		if _, err := rendezvous.Seal(goldenKey(t), h); !errors.Is(err, rendezvous.ErrEnvelope) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	key, a, b := goldenKey(t), goldenIdentity(t, 1), goldenIdentity(t, 2)
	other := job.NewKey()
	head := rendezvous.Head{V: 1, Job: key.ID(), Name: "map-3", Peer: a.Peer.String(), Issued: goldenTime}
	for name, c := range map[string]struct {
		change    func(*rendezvous.JoinRequest)
		signAs    string
		jobSigner ed25519.PrivateKey
		peer      ed25519.PrivateKey
		code      rendezvous.Code
	}{
		"good":             {code: ""},
		"other job's key":  {jobSigner: other.Signer(), code: rendezvous.CodeUnauthorized},
		"other instance":   {peer: b.Ed25519, code: rendezvous.CodeUnauthorized},
		"other verb":       {signAs: rendezvous.VerbLookup, code: rendezvous.CodeUnauthorized},
		"other job inside": {change: func(j *rendezvous.JoinRequest) { j.Job = other.ID() }, code: rendezvous.CodeUnauthorized},
		"old":              {change: func(j *rendezvous.JoinRequest) { j.Issued = goldenTime.Add(-3 * time.Minute) }, code: rendezvous.CodeStale},
		"future":           {change: func(j *rendezvous.JoinRequest) { j.Issued = goldenTime.Add(3 * time.Minute) }, code: rendezvous.CodeStale},
		"version":          {change: func(j *rendezvous.JoinRequest) { j.V = 2 }, code: rendezvous.CodeBadRequest},
		"no peer":          {change: func(j *rendezvous.JoinRequest) { j.Peer = "" }, code: rendezvous.CodeBadRequest},
		"dotted name":      {change: func(j *rendezvous.JoinRequest) { j.Name = "a.b" }, code: rendezvous.CodeIllegalName},
		"wildcard":         {change: func(j *rendezvous.JoinRequest) { j.Name = ">" }, code: rendezvous.CodeIllegalName},
		"empty name":       {change: func(j *rendezvous.JoinRequest) { j.Name = "" }, code: rendezvous.CodeIllegalName},
		"long name":        {change: func(j *rendezvous.JoinRequest) { j.Name = strings.Repeat("a", 65) }, code: rendezvous.CodeIllegalName},
		"huge":             {change: func(j *rendezvous.JoinRequest) { j.Name = strings.Repeat("a", rendezvous.MaxRequest) }, code: rendezvous.CodeBadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			req := rendezvous.JoinRequest{Head: head}
			if c.change != nil {
				c.change(&req)
			}
			if c.jobSigner == nil {
				c.jobSigner = key.Signer()
			}
			if c.peer == nil {
				c.peer = a.Ed25519
			}
			if c.signAs == "" {
				c.signAs = rendezvous.VerbJoin
			}
			signed, err := rendezvous.SignRequest(c.signAs, key.ID(), req, c.jobSigner, c.peer)
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(signed)
			if err != nil {
				t.Fatal(err)
			}
			var got rendezvous.JoinRequest
			err = rendezvous.ParseRequest(rendezvous.VerbJoin, key.ID(), data, goldenTime, &got, &got.Head)
			var refusal *rendezvous.RefusedError
			if errors.As(err, &refusal) != (c.code != "") || (refusal != nil && refusal.Code != c.code) {
				t.Errorf("%v, want code %q", err, c.code)
			}
		})
	}
}

func TestReplyAllowed(t *testing.T) {
	j := goldenKey(t).ID()
	for subject, want := range map[string]bool{
		rendezvous.JobInbox(j) + ".peer.abc":                true,
		rendezvous.JobInbox(j):                              false,
		rendezvous.JobInbox(j) + ".>":                       false,
		rendezvous.JobInbox(job.NewKey().ID()) + ".x":       false,
		rendezvous.SubjectInbox(j, "x"):                     false,
		rendezvous.SubjectJoined(j, "x"):                    false,
		"$SYS.REQ.SERVER.PING":                              false,
		"":                                                  false,
		"_INBOX_rendezvous." + rendezvous.JobInbox(j) + ".": false,
	} {
		if rendezvous.ReplyAllowed(j, subject) != want {
			t.Errorf("%q: want %v", subject, want)
		}
	}
}

func TestRefusedErrorIs(t *testing.T) {
	for code, target := range map[rendezvous.Code]error{
		rendezvous.CodeBadRequest: rendezvous.ErrBadRequest, rendezvous.CodeUnauthorized: rendezvous.ErrUnauthorized,
		rendezvous.CodeNotAllowed: rendezvous.ErrNotAllowed, rendezvous.CodeStale: rendezvous.ErrStale,
		rendezvous.CodeIllegalName: rendezvous.ErrIllegalName, rendezvous.CodeHeld: rendezvous.ErrHeld,
		rendezvous.CodeFenced: rendezvous.ErrFenced, rendezvous.CodeUnknown: rendezvous.ErrUnknown,
		rendezvous.CodeNotFound: rendezvous.ErrNotFound, rendezvous.CodeFull: rendezvous.ErrFull,
		rendezvous.CodeParkedFull: rendezvous.ErrFull, rendezvous.CodeUnavailable: rendezvous.ErrUnavailable,
	} {
		if !errors.Is(rendezvous.Refuse(code, ""), target) {
			t.Errorf("%s does not match %v", code, target)
		}
	}
}

// What is newer wins, for each field alone.
func TestHints(t *testing.T) {
	for _, tt := range []struct{ old, newer, want rendezvous.Hints }{
		{0, 0, 0}, {0, 9, 9}, {9, 0, 9}, {0b01_00_10_01, 0b10_01_00_10, 0b10_01_10_10}, {0xff, 0b01, 0b11_11_11_01},
	} {
		if got := tt.old.With(tt.newer); got != tt.want {
			t.Errorf("%b with %b: %b, want %b", tt.old, tt.newer, got, tt.want)
		}
	}
}
