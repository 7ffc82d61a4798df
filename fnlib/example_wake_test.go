package fnlib_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/fnwire/fnwire/fnlib"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// A function that runs only while there is something for it: the rendezvous calls its HTTP entry when somebody sends to its name.
func Example_wake() {
	ctx := context.Background()
	tb := &exampleTB{}
	defer tb.cleanup()
	world := newWorld(tb, 1)

	done := make(chan error, 1)
	work := func(name string) {
		node, err := fnlib.Join(ctx, world.config(name))
		if err == nil {
			var state []byte
			if _, state, err = accept(ctx, node); err == nil {
				fmt.Printf("%s woke up for %q\n", name, state)
			}
			_ = node.Close()
		}
		done <- err
	}
	secret, err := wake.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") // of your own; both ends read it from the environment
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /wake/{name}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wake.MaxEvent))
		if err != nil {
			return
		}
		event, err := wake.Verify(r.Header.Get, body, secret)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		go work(event.Data.Name) // fnlib.Join under this name, Receive, Close
		w.WriteHeader(http.StatusAccepted)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()

	// What `rendezvous --wake-file` reads.
	hooks, err := wake.Parse([]byte(`{"hooks": [{"name": "reduce-*", "url": "`+srv.URL+`/wake/{name}", "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]}`),
		func(ref string) (string, error) { return ref, nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	world.rdv.SetHooks(hooks)

	node, err := fnlib.Join(ctx, world.config("map-0"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer node.Close()
	if _, err := node.Send(ctx, "reduce-0", "part-7", strings.NewReader("state")); err != nil {
		fmt.Println(err)
	}
	if err := <-done; err != nil {
		fmt.Println(err)
	}
	// Output:
	// reduce-0 woke up for "state"
}
