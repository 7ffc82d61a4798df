package wake_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous/wake"
)

// A function's HTTP entry, and the call that the rendezvous makes.
func Example() {
	start := func(name string) { fmt.Println("starting", name) }
	secret, err := wake.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /wake", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, wake.MaxEvent))
		if err != nil {
			return
		}
		event, err := wake.Verify(r.Header.Get, body, secret)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		start(event.Data.Name) // fnlib.Join under this name, without waiting for it
		w.WriteHeader(http.StatusAccepted)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()

	hooks, err := wake.Parse([]byte(`{"hooks":[{"name":"reduce-*","url":"`+srv.URL+`/wake","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}]}`),
		func(ref string) (string, error) { return ref, nil })
	if err != nil {
		fmt.Println(err)
		return
	}
	sender := wake.NewSender(wake.Config{})
	defer sender.Close()
	event := wake.Event{Type: wake.EventType, Time: time.Now(), Data: wake.Data{Job: job.NewKey().ID(), Name: "reduce-0", Reason: wake.Called}}
	hook := hooks.Find(event.Data.Job, event.Data.Name)
	fmt.Println(sender.Send(context.Background(), hook, wake.NewID(), event, func(context.Context) bool { return true }))
	// Output:
	// starting reduce-0
	// <nil>
}
