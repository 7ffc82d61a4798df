package portmap_test

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/fnwire/fnwire/internal/portmap"
)

// Without a router that answers there is no port, and nothing else changes.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	portmap.Run(ctx, portmap.Config{
		Port: 4000, Gateway: netip.MustParseAddrPort("127.0.0.1:1"), // where nobody is
		OnChange: func(a netip.AddrPort) { fmt.Println("others reach port 4000 at", a) },
		OnError: func(err error) {
			fmt.Println(err)
			cancel()
		},
	})
	// Output: portmap: the router answers neither PCP, NAT-PMP nor UPnP: allow one of them in its settings
}
