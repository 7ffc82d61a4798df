package lambdaapi_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/fnwire/fnwire/experiments/lambdaapi"
)

// A function is invoked twice by one instance, which is frozen in between, and told to end.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	bootstrap, err := os.Executable()
	if err != nil {
		fmt.Println(err)
		return
	}
	instance, err := lambdaapi.Start(lambdaapi.Config{
		Command: []string{bootstrap}, Env: []string{envFunction + "=plain"},
		Function: lambdaapi.Function{Name: "f", Timeout: 10 * time.Second},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 2 {
		r, err := instance.Invoke(ctx, lambdaapi.Event{Payload: []byte(`{"Do": "report"}`)})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("cold: %v, error: %q\n", r.Cold, r.FunctionError)
		if err := instance.WaitIdle(ctx); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(instance.Shutdown(ctx))
	// Output:
	// cold: true, error: ""
	// cold: false, error: ""
	// <nil>
}
