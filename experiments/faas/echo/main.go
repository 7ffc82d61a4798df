// Command echo is a function for AWS Lambda to try platforms with: it answers with its event and who it is, or fails as it is told.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type event struct {
	Print   string          `json:"print,omitempty"`    // into the log
	SleepMS int             `json:"sleep_ms,omitempty"` // before the answer, or until the deadline
	Error   string          `json:"error,omitempty"`    // to answer with
	Panic   string          `json:"panic,omitempty"`
	Exit    int             `json:"exit,omitempty"` // code to exit with
	Fill    int             `json:"fill,omitempty"` // bytes of the answer, besides the rest
	Echo    json.RawMessage `json:"echo,omitempty"`
}

type answer struct {
	Instance  string          `json:"instance"` // its log stream
	Count     int             `json:"count"`    // of its events, this one too
	RequestID string          `json:"request_id"`
	MemoryMB  int             `json:"memory_mb"`
	Client    string          `json:"client,omitempty"` // by the client context
	Echo      json.RawMessage `json:"echo,omitempty"`
	Fill      []byte          `json:"fill,omitempty"`
}

func main() {
	count := 0 // an instance has one event at a time
	lambda.Start(func(ctx context.Context, e event) (answer, error) {
		count++
		if e.Print != "" {
			fmt.Println(e.Print)
		}
		if e.Exit != 0 {
			os.Exit(e.Exit)
		}
		if err := obey(ctx, e); err != nil {
			return answer{}, err
		}
		a := answer{Instance: lambdacontext.LogStreamName, Count: count, MemoryMB: lambdacontext.MemoryLimitInMB, Echo: e.Echo, Fill: make([]byte, e.Fill)}
		if lc, ok := lambdacontext.FromContext(ctx); ok {
			a.RequestID, a.Client = lc.AwsRequestID, lc.ClientContext.Client.AppTitle
		}
		return a, nil
	})
}

func obey(ctx context.Context, e event) error {
	switch {
	case e.SleepMS > 0:
		select {
		case <-time.After(time.Duration(e.SleepMS) * time.Millisecond):
		case <-ctx.Done():
			select {} // as one that does not look at its deadline
		}
	case e.Panic != "":
		panic(e.Panic)
	case e.Error != "":
		return errors.New(e.Error)
	}
	return nil
}
