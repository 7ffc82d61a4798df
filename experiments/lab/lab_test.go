//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/lab/labtest"
)

func TestMain(m *testing.M) {
	os.Exit(labtest.Main(m))
}

func TestSmoke(t *testing.T) {
	l, err := lab.New(context.Background(), lab.Spec{Hosts: []lab.Host{{"hub", lab.None}, {"a", lab.PortRestricted}, {"b", lab.FullCone}, {"c", lab.Symmetric}, {"d", lab.UDPBlocked}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Println(l.Hosts())
	p, err := l.Start(t.Context(), "a", func() *exec.Cmd {
		c := exec.Command("sh", "-c", "ip a; ip r; ps ax; id; pwd; ping -c1 198.51.100.2; ls -l /proc/self/ns")
		c.Stdout = os.Stdout
		c.Stderr = os.Stdout
		return c
	}())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(p.Wait())
	var hub net.PacketConn
	if err := l.Do("hub", func() (err error) { hub, err = net.ListenPacket("udp4", "198.51.100.2:3478"); return }); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{"a", "b", "c"} {
		var c net.PacketConn
		if err := l.Do(h, func() (err error) { c, err = net.ListenPacket("udp4", "0.0.0.0:5000"); return }); err != nil {
			t.Fatal(err)
		}
		c.WriteTo([]byte("hi"), hub.LocalAddr())
		b := make([]byte, 10)
		n, from, err := hub.ReadFrom(b)
		t.Log(n, from, err)
		hub.WriteTo([]byte("ho"), from)
		n, from, err = c.ReadFrom(b)
		t.Log(n, from, err)
		c.Close()
	}
	hub.Close()
}
