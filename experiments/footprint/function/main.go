// Command function is a function that links fnlib and little else, so that what it takes is what fnlib takes. With an argument it
// ends at once; else it does what the experiment footprint tells it, by the protocol of package rpc.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fnwire/fnwire/experiments/footprint"
	"github.com/fnwire/fnwire/experiments/rpc"
	"github.com/fnwire/fnwire/fnlib"
)

func main() {
	if len(os.Args) > 1 {
		return
	}
	var f function
	err := rpc.Serve(context.Background(), os.Stdin, os.Stdout, map[string]rpc.Op{
		footprint.OpJoin: rpc.Handle(f.join), footprint.OpSend: rpc.Handle(f.send), footprint.OpReceive: rpc.Handle(f.receive),
	})
	if f.node != nil {
		err = errors.Join(err, f.node.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type function struct{ node *fnlib.Node }

func (f *function) join(ctx context.Context, a footprint.JoinArgs) (_ rpc.None, err error) {
	f.node, err = fnlib.Join(ctx, fnlib.Config{URL: a.URL, JobKey: a.Key, Name: a.Name})
	return rpc.None{}, err
}

func (f *function) send(ctx context.Context, a footprint.SendArgs) (footprint.Moved, error) {
	path, err := fnlib.ParsePath(a.Path)
	if err != nil {
		return footprint.Moved{}, err
	}
	source := a.Source.Open()
	defer source.Close()
	rc, err := f.node.SendWith(ctx, a.To, "state", source, fnlib.SendOptions{Path: path, Size: a.Source.Size()})
	return footprint.Moved{Bytes: rc.Bytes, Digest: rc.Digest.String(), Path: rc.Path}, err
}

func (f *function) receive(ctx context.Context, _ rpc.None) (footprint.Moved, error) {
	in, err := f.node.Receive(ctx)
	if err != nil {
		return footprint.Moved{}, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, in, make([]byte, 256<<10)); err != nil {
		return footprint.Moved{}, err
	}
	return footprint.Moved{Bytes: in.Bytes(), Digest: in.Digest().String()}, in.Accept()
}
