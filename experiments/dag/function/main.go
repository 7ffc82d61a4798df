// Command function is the function of the experiment dag, for AWS Lambda's runtime provided.al2023: it runs tasks of a graph, as package dag
// describes.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/fnwire/fnwire/experiments/dag"
)

func main() {
	f, err := dag.NewFunction(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lambda.StartWithOptions(f.Handle, lambda.WithEnableSIGTERM(func() {
		_ = f.Close() // nothing waits for it
		os.Exit(0)
	}))
}
