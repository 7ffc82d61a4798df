package natsobj_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/internal/job"
	rdv "github.com/fnwire/fnwire/rendezvous/server"
)

// A function stores its state without delay when the rendezvous is gone from a NATS that is there, and keeps the store.
func TestRendezvousGone(t *testing.T) {
	nats := startNATS(t, nil).ClientURL()
	key := job.NewKey()
	r, err := rdv.New(rdv.Config{NATS: nats, Allow: []job.ID{key.ID()}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	select {
	case <-r.Ready():
	case err := <-ended:
		t.Fatal(err)
	}
	st := open(t, nats)
	defer st.Close()
	n, err := fnlib.Join(t.Context(), fnlib.Config{
		URL: nats, JobKey: key.Encode(), Name: "a", Store: st, Listen: netip.MustParseAddrPort("127.0.0.1:0"), NoIPv6: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	rc, err := n.Send(t.Context(), "b", "k", strings.NewReader("state"))
	if err != nil || rc.Stored == "" {
		t.Errorf("%+v, %v", rc, err)
	}
	if _, err := n.SendWith(t.Context(), "b", "k", strings.NewReader("state"), fnlib.SendOptions{NoStore: true}); err == nil {
		t.Error("sent without anybody to ask")
	}
}
