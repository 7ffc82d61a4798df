//go:build !unix

package rpc

import (
	"context"
	"errors"
)

func usage(context.Context, None) (Usage, error) {
	return Usage{}, errors.New("this system does not tell what a process has used")
}
