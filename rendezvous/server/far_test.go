package server_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
	"github.com/fnwire/fnwire/rendezvous/server"
)

// far is a NATS server at a distance.
type far struct {
	rendezvous.InProcess
	oneWay time.Duration
	made   atomic.Int64 // connections, of which there is but one
	wg     sync.WaitGroup
}

func (f *far) InProcessConn() (net.Conn, error) {
	if f.made.Add(1) > 1 {
		return nil, net.ErrClosed
	}
	conn, err := f.InProcess.InProcessConn()
	if err != nil {
		return nil, err
	}
	here, there := net.Pipe()
	f.wg.Go(func() { f.carry(there, conn) })
	f.wg.Go(func() { f.carry(conn, there) })
	return here, nil
}

// carry moves bytes until from ends.
func (f *far) carry(to, from net.Conn) {
	type chunk struct {
		b   []byte
		due time.Time
	}
	under := make(chan chunk, 1024)
	f.wg.Go(func() {
		defer to.Close()
		for c := range under {
			time.Sleep(time.Until(c.due))
			_, _ = to.Write(c.b) // fails when closed; then from ends, too
		}
	})
	defer close(under)
	for {
		b := make([]byte, 64<<10)
		n, err := from.Read(b)
		if err != nil {
			return
		}
		under <- chunk{b[:n], time.Now().Add(f.oneWay)}
	}
}

// A function joins from as far away as 4 s there and back, and a connection that is well is not remade because the answer to
// a ping takes a while.
func TestFarAway(t *testing.T) {
	for _, rtt := range []time.Duration{40 * time.Millisecond, 600 * time.Millisecond, 2100 * time.Millisecond, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			key, f := job.NewKey(), &far{oneWay: rtt / 2}
			t.Cleanup(f.wg.Wait)
			f.InProcess = start(t, server.Config{Allow: []job.ID{key.ID()}, DontListen: true})
			in, err := tryDial(t, "", key, "a", func(c *rendezvous.Config) { c.InProcess = f })
			if err != nil {
				t.Errorf("%v: %v", rtt, err)
				return
			}
			in.join(t)
			in.run(t)
			for i := range 20 {
				in.Check()
				time.Sleep(10 * time.Second)
				if f.made.Load() > 1 {
					t.Errorf("%v: another connection after %d checks", rtt, i+1)
					_ = in.Close()
					return
				}
			}
		})
	}
}
