package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
	"golang.org/x/sys/unix"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/coturn"
	"github.com/fnwire/fnwire/experiments/rpc"
)

const (
	realm    = "lab"
	user     = "user"
	password = "password"
)

type server struct{ *turn.Server }

// Usage implements peer.Server: all that is used, this process uses.
func (server) Usage(context.Context) (rpc.Usage, error) { return rpc.Usage{}, nil }

// serve starts a TURN server as pion's example for several threads does: a socket for each core (SO_REUSEPORT).
func serve(ctx context.Context, listen netip.AddrPort) (peer.Server, string, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	var conns []turn.PacketConnConfig
	for range runtime.GOMAXPROCS(0) {
		c, err := lc.ListenPacket(ctx, "udp4", listen.String())
		if err != nil {
			return nil, "", fmt.Errorf("pionturn: %w", err)
		}
		u := c.(*net.UDPConn)
		_ = u.SetReadBuffer(socketBuffer) // the kernel may cap these
		_ = u.SetWriteBuffer(socketBuffer)
		conns = append(conns, turn.PacketConnConfig{PacketConn: c, RelayAddressGenerator: generator{&turn.RelayAddressGeneratorStatic{
			RelayAddress: net.IP(listen.Addr().AsSlice()), Address: listen.Addr().String(),
		}}})
	}
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	key := turn.GenerateAuthKey(user, realm, password)
	s, err := turn.NewServer(turn.ServerConfig{
		Realm: realm, PacketConnConfigs: conns, LoggerFactory: log,
		AuthHandler: func(ra *turn.RequestAttributes) (string, []byte, bool) { return ra.Username, key, ra.Username == user },
	})
	if err != nil {
		return nil, "", fmt.Errorf("pionturn: %w", err)
	}
	b, err := json.Marshal(coturn.Access{Addr: listen, Realm: realm, User: user, Password: password})
	return server{s}, string(b), err
}

// generator gives relay sockets the buffers that the others have.
type generator struct{ turn.RelayAddressGenerator }

// AllocatePacketConn implements turn.RelayAddressGenerator.
func (g generator) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	conn, addr, err := g.RelayAddressGenerator.AllocatePacketConn(c)
	if u, ok := conn.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(socketBuffer)
		_ = u.SetWriteBuffer(socketBuffer)
	}
	return conn, addr, err
}
