package faas_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fnwire/fnwire/experiments/faas"
	"github.com/fnwire/fnwire/experiments/lab"
)

// A function is invoked twice: the first event starts an instance behind a NAT, the second thaws it.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := example(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// cold, on a: 200
	// thawed, on a: 200
}

func example(ctx context.Context) error {
	l, err := lab.New(ctx, lab.Spec{Hosts: []lab.Host{{Name: "a", NAT: lab.Symmetric}}})
	if err != nil {
		return err
	}
	defer l.Close()
	dir, err := os.MkdirTemp("", "hello")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := function(dir, "hello") // with a program "bootstrap" in its directory
	if err != nil {
		return err
	}
	p, err := faas.New(faas.Config{Lab: l, Hosts: []string{"a"}, Functions: []faas.Function{f}, Record: func(r faas.Record) {
		if v := r.Invocation; v != nil {
			fmt.Printf("%s, on %s: %s", v.Start, v.Host, v.Error)
		}
	}})
	if err != nil {
		return err
	}
	defer p.Close()
	for range 2 {
		r, err := p.Invoke(ctx, faas.Request{Function: "hello", Payload: []byte(`{}`), Tail: true})
		if err != nil {
			return err
		}
		if r.FunctionError == "" {
			fmt.Println(200)
		}
	}
	return nil
}
