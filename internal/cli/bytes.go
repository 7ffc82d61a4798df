package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a flag for a number of bytes: 1048576, 512MiB, 16GiB. It implements pflag.Value.
type Bytes int64

var units = []struct {
	suffix string
	bytes  int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// Set reads a number and, if it has one, its unit.
func (b *Bytes) Set(s string) error {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		*b = Bytes(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q: want a number of bytes, like 1048576, 512MiB or 16GiB", s)
}

// String writes it with the largest unit that leaves no rest.
func (b *Bytes) String() string {
	for _, u := range units {
		if int64(*b)%u.bytes == 0 && (*b != 0 || u.bytes == 1) {
			return strconv.FormatInt(int64(*b)/u.bytes, 10) + u.suffix
		}
	}
	return "" // the last unit is one byte
}

// Type is what --help calls the value.
func (b *Bytes) Type() string { return "size" }
