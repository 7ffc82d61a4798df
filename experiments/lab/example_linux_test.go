package lab_test

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/fnwire/fnwire/experiments/lab"
)

// A program that makes a lab calls Enter first; here TestMain has done so.
func Example() {
	l, err := lab.New(context.Background(), lab.Spec{Hosts: []lab.Host{
		{Name: "server"},
		{Name: "client", NAT: lab.PortRestricted},
	}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer l.Close()

	var server, client net.PacketConn
	err = l.Do("server", func() (err error) { server, err = net.ListenPacket("udp4", ":3478"); return err })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer server.Close()
	err = l.Do("client", func() (err error) { client, err = net.ListenPacket("udp4", ":5000"); return err })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer client.Close()

	to := &net.UDPAddr{IP: l.Addr("server").AsSlice(), Port: 3478}
	if _, err = client.WriteTo([]byte("hello"), to); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	buf := make([]byte, 100)
	n, from, err := server.ReadFrom(buf)
	fmt.Printf("the client has address %v; the server received %q from %v, %v\n", l.Addr("client"), buf[:n], from, err)
	// Output: the client has address 10.2.0.2; the server received "hello" from 198.51.100.3:5000, <nil>
}
