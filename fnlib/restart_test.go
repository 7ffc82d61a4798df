package fnlib_test

import (
	"testing"
	"time"

	"github.com/fnwire/fnwire/fnlib"
)

// The only relay of a busy connection is restarted: the connection goes on.
func TestOnlyRelayRestartsUnderLoad(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.join(t, "a"), w.join(t, "b")
	l, err := b.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan int, 1<<16)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				close(got)
				return
			}
			got <- n
		}
	}()
	c, err := a.DialPath(t.Context(), "b", fnlib.RelayOnly)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		buf := make([]byte, 64<<10)
		for {
			select {
			case <-stop:
				_ = c.Close()
				return
			case <-time.After(3 * time.Millisecond):
				if _, err := c.Write(buf); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	for range 100 {
		<-got
	}
	r := w.rels[0]
	r.stop()
	time.Sleep(time.Second)
	for len(got) > 0 {
		<-got
	}
	w.startRelay(t, "r1", r.addr)
	began := time.Now()
	<-got
	t.Logf("goes on %v after the relay came back", time.Since(began))
	for range 100 {
		<-got
	}
	close(stop)
	for range got {
	}
}
