package natsobj

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// headerObject is what an object's message says of it.
const headerObject = "Fnwire-Object"

const (
	formatVersion = "1"
	idSize        = 26       // that of rand.Text
	maxChunk      = 64 << 20 // NATS' own limit on a message
)

// object describes an object.
type object struct {
	size  int64
	chunk int64 // bytes; 0: the object is in the message
	id    string
}

func (o object) String() string {
	return fmt.Sprintf("%s %d %d %s", formatVersion, o.size, o.chunk, o.id)
}

// chunks returns how many there are.
func (o object) chunks() int64 {
	if o.chunk == 0 {
		return 0
	}
	return (o.size-1)/o.chunk + 1
}

// length returns the bytes of chunk n.
func (o object) length(n int64) int64 { return min(o.chunk, o.size-n*o.chunk) }

func parseObject(header string) (object, error) {
	w := strings.Split(header, " ")
	if len(w) < 4 || w[0] != formatVersion {
		return object{}, fmt.Errorf("%.80q describes no object of fnwire that this version knows", header)
	}
	size, sizeOK := number(w[1], math.MaxInt64)
	chunk, chunkOK := number(w[2], maxChunk)
	if !sizeOK || !chunkOK || !legalID(w[3]) || chunk > 0 && size == 0 {
		return object{}, fmt.Errorf("%.80q describes no object of fnwire", header)
	}
	return object{size: size, chunk: chunk, id: w[3]}, nil
}

// number reads a decimal number of one spelling.
func number(s string, most int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= most && strconv.FormatInt(n, 10) == s
}

// legalID keeps what a subject is made of to what cannot lead elsewhere.
func legalID(s string) bool {
	return len(s) == idSize && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}
