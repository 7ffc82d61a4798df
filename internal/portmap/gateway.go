package portmap

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// errGateway tells that nobody can be asked.
var errGateway = errors.New("no default gateway is known")

const (
	routeFile  = "/proc/net/route" // of Linux, the system that functions run on
	routeUp    = 0x1
	routeVia   = 0x2
	maxRoutes  = 4096
	serverPort = 5351
)

// defaultGateway is the router of the default route over IPv4 with the lowest metric.
func defaultGateway() (netip.Addr, error) {
	f, err := os.Open(routeFile)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%w: %w", errGateway, err)
	}
	defer f.Close()
	return parseRoutes(f)
}

// parseRoutes reads the kernel's table: interface, destination, gateway, flags, and metric as the seventh; addresses are
// in hexadecimal, in the order of the machine's bytes.
func parseRoutes(r io.Reader) (best netip.Addr, err error) {
	lines := bufio.NewScanner(r)
	lowest := uint64(0)
	for n := 0; n < maxRoutes && lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 8 || f[1] != "00000000" || f[7] != "00000000" {
			continue
		}
		raw, err := hex.DecodeString(f[2])
		flags, ferr := strconv.ParseUint(f[3], 16, 32)
		metric, merr := strconv.ParseUint(f[6], 10, 32)
		if errors.Join(err, ferr, merr) != nil || len(raw) != 4 || flags&(routeUp|routeVia) != routeUp|routeVia {
			continue
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(raw))
		if !best.IsValid() || metric < lowest {
			best, lowest = netip.AddrFrom4(b), metric
		}
	}
	if !best.IsValid() {
		return best, errGateway
	}
	return best, nil
}
