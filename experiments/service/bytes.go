package service

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

const (
	heldBytes  = 64 << 10 // of one read
	heldChunks = 16
)

func (f forwarder) serveBytes(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel() // of the connections, if l fails
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	for {
		c, err := l.Accept()
		if err != nil {
			_ = l.Close()
			return err
		}
		all.Go(func() { f.forward(ctx, c) })
	}
}

// held is what must not be sent before a time.
type held struct {
	due   time.Time
	bytes []byte
	whole *[heldBytes]byte // of which they are the beginning
}

// forward is the life of a connection.
func (f forwarder) forward(ctx context.Context, client net.Conn) {
	server, err := f.dial(ctx)
	if err != nil {
		_ = client.Close() // as if the server had
		return
	}
	end := func() {
		_ = client.Close()
		_ = server.Close()
	}
	defer end()
	defer context.AfterFunc(ctx, end)()
	queue := make(chan held, heldChunks-2) // one is being read, one written
	free := sync.Pool{New: func() any { return new([heldBytes]byte) }}
	var all sync.WaitGroup
	all.Go(func() {
		defer close(queue)
		for {
			whole := free.Get().(*[heldBytes]byte)
			n, err := client.Read(whole[:])
			queue <- held{time.Now().Add(f.FirstByte), whole[:n], whole}
			if err != nil {
				return
			}
		}
	})
	all.Go(func() {
		var failed error
		for h := range queue { // to its end, or the reader would wait
			if d := time.Until(h.due); d > 0 && failed == nil {
				f.sleep(d)
			}
			if failed == nil {
				if _, failed = server.Write(h.bytes); failed != nil {
					end()
				}
			}
			free.Put(h.whole)
		}
		_ = closeWrite(server) // the answers may go on
	})
	_, _ = io.Copy(client, server) // its end is that of the connection, whatever it is
	end()
	all.Wait()
}
