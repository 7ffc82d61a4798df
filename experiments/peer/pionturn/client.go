package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"

	"github.com/fnwire/fnwire/experiments/peer"
	"github.com/fnwire/fnwire/experiments/peer/coturn"
	"github.com/fnwire/fnwire/experiments/peer/plainquic"
)

const socketBuffer = 7 << 20 // bytes, as fnwire and quic-go have

// allocation is an end whose packets go to and come from an address at a TURN server. The other end sends there from a plain
// socket, so that one of the two ways to the server carries no TURN: the least work that TURN can have.
type allocation struct {
	plainquic.End
	udp    *net.UDPConn
	client *turn.Client
}

// Open implements peer.End.
func (a *allocation) Open(_ context.Context, args peer.OpenArgs) (string, error) {
	var at coturn.Access
	if err := json.Unmarshal([]byte(args.Server), &at); err != nil {
		return "", fmt.Errorf("pionturn: what the server says: %w", err)
	}
	var err error
	if a.udp, err = net.ListenUDP("udp4", nil); err != nil {
		return "", err
	}
	// The kernel may cap these.
	_ = a.udp.SetReadBuffer(socketBuffer)
	_ = a.udp.SetWriteBuffer(socketBuffer)
	log := logging.NewDefaultLoggerFactory()
	log.DefaultLogLevel = logging.LogLevelDisabled
	a.client, err = turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: at.Addr.String(), Username: at.User, Password: at.Password, Realm: at.Realm, Conn: a.udp,
		RTO: 200 * time.Millisecond, LoggerFactory: log,
	})
	if err != nil {
		return "", fmt.Errorf("pionturn: %w", err)
	}
	if err := a.client.Listen(); err != nil {
		return "", fmt.Errorf("pionturn: %w", err)
	}
	relayed, err := a.client.Allocate()
	if err != nil {
		return "", fmt.Errorf("pionturn: allocate: %w", err)
	}
	if a.Peer, err = plainquic.OpenOn(relayed); err != nil {
		return "", err
	}
	addr, ok := relayed.LocalAddr().(*net.UDPAddr)
	if !ok {
		return "", fmt.Errorf("pionturn: allocated a %T", relayed.LocalAddr())
	}
	return a.Ready(args, addr.AddrPort())
}

// Close implements peer.End.
func (a *allocation) Close() error {
	err := a.End.Close()
	if a.client != nil {
		a.client.Close()
	}
	if a.udp != nil {
		if cerr := a.udp.Close(); !errors.Is(cerr, net.ErrClosed) {
			err = errors.Join(err, cerr)
		}
	}
	return err
}
