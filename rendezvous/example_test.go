package rendezvous_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// What the rendezvous carries it can neither make nor change.
func ExampleOpen() {
	key := job.NewKey()
	id, _ := ident.New()
	envelope, err := rendezvous.Seal(key, rendezvous.Hello{
		Job: key.ID(), Kind: rendezvous.KindOffer, FromName: "map-3", FromPeer: id.Peer.String(), FromEpoch: 1, ToName: "reduce", Seq: 1,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	hello, err := rendezvous.Open(key, envelope, rendezvous.Self{Name: "reduce"})
	fmt.Println(hello.FromName, "offers:", err)

	envelope.Body = strings.Replace(envelope.Body, "map-3", "map-4", 1)
	_, err = rendezvous.Open(key, envelope, rendezvous.Self{Name: "reduce"})
	fmt.Println(errors.Is(err, rendezvous.ErrEnvelope), err)
	// Output:
	// map-3 offers: <nil>
	// true envelope refused: not sealed with this job's key
}
