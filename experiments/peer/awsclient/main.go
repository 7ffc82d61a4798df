// Command peer-awsclient invokes functions with the AWS SDK, as programs for Lambda do, and prints what they answer:
//
//	AWS_ENDPOINT_URL_LAMBDA=http://198.51.100.2:9000 peer-awsclient FUNCTION [PAYLOAD]
//
// It is a module of its own, since nothing else here needs the SDK's client for Lambda.
package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
)

func main() {
	if err := run(context.Background(), os.Getenv("AWS_ENDPOINT_URL_LAMBDA"), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "peer-awsclient:", err)
		os.Exit(1)
	}
}

// run invokes a function, prints its answer to stdout, and the end of its log to stderr.
func run(ctx context.Context, endpoint string, args []string, stdout, stderr io.Writer) error {
	if endpoint == "" || len(args) < 1 || len(args) > 2 {
		return errors.New("want AWS_ENDPOINT_URL_LAMBDA=http://HOST:PORT and FUNCTION [PAYLOAD]")
	}
	in := &lambda.InvokeInput{FunctionName: &args[0], LogType: types.LogTypeTail}
	if len(args) == 2 {
		in.Payload = []byte(args[1])
	}
	out, err := newClient(endpoint, nil).Invoke(ctx, in)
	if err != nil {
		return err
	}
	log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	_, _ = stderr.Write(log)
	if _, err := fmt.Fprintf(stdout, "%s\n", out.Payload); err != nil {
		return err
	}
	if out.FunctionError != nil {
		return fmt.Errorf("function error: %s", *out.FunctionError)
	}
	return nil
}

// newClient returns the SDK's client as it comes, but for its endpoint, by whatever connections are given.
func newClient(endpoint string, connections *http.Client) *lambda.Client {
	o := lambda.Options{
		Region: "us-east-1", BaseEndpoint: &endpoint,
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: "none", SecretAccessKey: "none"}, nil // signatures are not looked at
		}),
	}
	if connections != nil {
		o.HTTPClient = connections
	}
	return lambda.New(o)
}
