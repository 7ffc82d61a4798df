package holder_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/holder"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

func TestMain(m *testing.M) { os.Exit(labtest.Main(m)) }

func Example() {
	if err := example(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// raised by hand: A behind a symmetric NAT
	// exit code 3
	// after down: true
}

func example(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "holder")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "lab.sock")

	// In one process:
	l, err := lab.New(ctx, lab.Spec{Hosts: []lab.Host{{Name: "A", NAT: lab.Symmetric}}})
	if err != nil {
		return err
	}
	ln, err := holder.Listen(socket)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	served := make(chan error, 1)
	go func() { served <- holder.Serve(ctx, ln, l, "raised by hand") }()

	// In others of the same user:
	info, err := holder.Status(ctx, socket)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %s behind a %s NAT\n", info.Name, info.Hosts[0].Name, info.Hosts[0].NAT)
	exit3 := holder.Command{Host: "A", Path: "/bin/sh", Args: []string{"sh", "-c", "exit 3"}, Dir: "/"}
	code, err := holder.Exec(ctx, socket, exit3, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}, nil)
	if err != nil {
		return err
	}
	fmt.Println("exit code", code)
	if _, err = holder.Down(ctx, socket); err != nil {
		return err
	}
	_, err = holder.Status(ctx, socket)
	fmt.Println("after down:", errors.Is(err, holder.ErrDown))
	return <-served
}
