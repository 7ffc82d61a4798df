package holder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrDown is wrapped by the errors of [Status], [Down] and [Exec] when there is no holder at the socket.
var ErrDown = errors.New("no lab is up")

// Status returns what the holder at the socket tells of its lab.
func Status(ctx context.Context, socket string) (Info, error) {
	c, err := open(ctx, socket, request{Op: "status"})
	if err != nil {
		return Info{}, err
	}
	defer c.close()
	return c.info(ctx)
}

// Down has the holder close its lab, and returns when all of it has gone.
func Down(ctx context.Context, socket string) (Info, error) {
	c, err := open(ctx, socket, request{Op: "down"})
	if err != nil {
		return Info{}, err
	}
	defer c.close()
	return c.info(ctx)
}

// Exec runs a command in the lab with the given files as its standard ones, passes signals on, and returns its exit
// code: 128 + n if it was killed by signal n. It returns when the command has ended, or an error if it could not be started or ctx has ended.
func Exec(ctx context.Context, socket string, cmd Command, stdio [3]*os.File, signals <-chan os.Signal) (int, error) {
	c, err := open(ctx, socket, request{Op: "exec", Command: cmd}, stdio[:]...)
	if err != nil {
		return 0, err
	}
	defer c.close()
	if _, err := c.answer(ctx); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if sig, ok := s.(syscall.Signal); ok {
					_ = json.NewEncoder(c.conn).Encode(signalMsg{int(sig)}) // should this fail, the answer does too
				}
			case <-ended:
				return
			}
		}
	}()
	a, err := c.answer(ctx)
	if err != nil {
		return 0, err
	}
	if a.Exit == nil {
		return 0, errors.New("lab: command ended without exit code: is this another version?")
	}
	return *a.Exit, nil
}

type client struct {
	conn *net.UnixConn
	in   *json.Decoder
	stop func() bool
}

func open(ctx context.Context, socket string, req request, files ...*os.File) (*client, error) {
	err := checkDir(filepath.Dir(socket))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab: %w", ErrDown)
	}
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", socket)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("lab: %w", ErrDown)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	conn := nc.(*net.UnixConn)
	c := &client{conn: conn, in: json.NewDecoder(conn)}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	var oob []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, f := range files {
			fds = append(fds, int(f.Fd()))
		}
		oob = unix.UnixRights(fds...)
	}
	if _, _, err = conn.WriteMsgUnix([]byte{' '}, oob, nil); err == nil {
		err = json.NewEncoder(conn).Encode(req)
	}
	if err != nil {
		c.close()
		return nil, errors.Join(ctx.Err(), fmt.Errorf("lab: request: %w", err))
	}
	return c, nil
}

func (c *client) close() {
	c.stop()
	_ = c.conn.Close()
}

func (c *client) answer(ctx context.Context) (answer, error) {
	var a answer
	switch err := c.in.Decode(&a); {
	case ctx.Err() != nil:
		return a, ctx.Err()
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return a, errors.New("lab: the lab went away")
	case err != nil:
		return a, fmt.Errorf("lab: answer: %w", err)
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, nil
}

func (c *client) info(ctx context.Context) (Info, error) {
	a, err := c.answer(ctx)
	if err != nil {
		return Info{}, err
	}
	if a.Info == nil {
		return Info{}, errors.New("lab: answer without information: is this another version?")
	}
	return *a.Info, nil
}
