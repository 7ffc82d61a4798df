package fnlib

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"github.com/fnwire/fnwire/internal/job"
)

// Types of stream of states that Put keeps. Package fnlib's comment has the tables.
const (
	streamGet = 0x08
	streamGot = 0x09

	getSize      = 46
	gotSize      = 19 // without the lead's name
	maxGetBlocks = 64 // that one GET may ask for
)

// What a GET asks for.
const (
	getBlocks  = 0
	getDigests = 1 // the digests of all blocks, then blocks
	getDone    = 2 // nothing: this Get has read the state
	getDrop    = 3 // nothing: the state is wanted no more
)

// Status in a GOT.
const (
	gotHere    = 0
	gotUnknown = 1 // not held, or no longer
	gotExpired = 2
	gotReadOut = 3 // read as often as its Put allowed
	gotDropped = 4
	gotBusy    = 5 // the peer has as many GETs under way as it may
	gotPassed  = 6 // the peer gets the state itself, and has let go the block that was asked for
	gotComing  = 7 // the peer gets the state itself, and sends each block when it has it
)

// What stands before each block of an answer with gotComing.
const (
	comingYet  = 0 // not the block: the peer is well, and waits for it
	comingHere = 1
)

// noLimit is how many more may read a state that as many may read as like.
const noLimit = math.MaxUint32

// getRequest opens a stream that asks for a state.
type getRequest struct {
	what  byte
	id    stateID // of the state
	by    stateID // of the Get
	first uint32  // block
	count uint32  // blocks
	place uint32  // of the Get in its chain, as its holder has told it; 0: it has none
}

func appendGet(b []byte, g getRequest) []byte {
	b = append(b, streamGet, g.what)
	b = append(b, g.id[:]...)
	b = append(b, g.by[:]...)
	b = binary.BigEndian.AppendUint32(b, g.first)
	b = binary.BigEndian.AppendUint32(b, g.count)
	return binary.BigEndian.AppendUint32(b, g.place)
}

// readGet reads what follows the type.
func readGet(r io.Reader) (g getRequest, err error) {
	var b [getSize - 1]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return g, err
	}
	g = getRequest{
		what: b[0], id: stateID(b[1:]), by: stateID(b[17:]),
		first: binary.BigEndian.Uint32(b[33:]), count: binary.BigEndian.Uint32(b[37:]), place: binary.BigEndian.Uint32(b[41:]),
	}
	if g.what > getDrop || g.count > maxGetBlocks || g.what > getDigests && g.first|g.count|g.place != 0 {
		return g, fmt.Errorf("%w: GET %d of %d blocks from %d", errWire, g.what, g.count, g.first)
	}
	return g, nil
}

// gotHeader begins the answer.
type gotHeader struct {
	status byte
	left   uint32 // how many Gets may still end well; noLimit. With gotPassed the first block that is still there
	size   uint64 // of the state, bytes
	place  uint32 // in the chain of those who get the state, of who has asked; 0: none
	lead   string // whom to ask first; then no blocks follow. Empty: nobody
}

func appendGot(b []byte, g gotHeader) []byte {
	b = append(b, streamGot, g.status)
	b = binary.BigEndian.AppendUint32(b, g.left)
	b = binary.BigEndian.AppendUint64(b, g.size)
	b = binary.BigEndian.AppendUint32(b, g.place)
	return append(append(b, byte(len(g.lead))), g.lead...)
}

func readGot(r io.Reader) (g gotHeader, err error) {
	var b [gotSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return g, unexpected(err)
	}
	g = gotHeader{
		status: b[1], left: binary.BigEndian.Uint32(b[2:]), size: binary.BigEndian.Uint64(b[6:]), place: binary.BigEndian.Uint32(b[14:]),
	}
	length := b[18]
	if b[0] != streamGot || g.status > gotComing || g.size > maxRefBytes || length > job.MaxName || (length > 0 || g.place > 0) && g.status != gotHere ||
		length > 0 && g.place == 0 {
		return g, fmt.Errorf("%w: GOT", errWire)
	}
	if length == 0 {
		return g, nil
	}
	name := make([]byte, length)
	if _, err := io.ReadFull(r, name); err != nil {
		return g, unexpected(err)
	}
	if g.lead = string(name); job.CheckName(g.lead) != nil {
		return g, fmt.Errorf("%w: GOT with the name %q", errWire, g.lead)
	}
	return g, nil
}

// appendDigests writes the digests of all blocks.
func appendDigests(b []byte, digests []Digest) []byte {
	for _, d := range digests {
		b = append(b, d[:]...)
	}
	return b
}

// readDigests reads the digests of the blocks of a state, and fails with ErrDigest unless they are those that its ref stands for.
func readDigests(r io.Reader, i refInfo) ([]Digest, error) {
	digests := make([]Digest, blocksOf(i.size))
	for k := range digests {
		if _, err := io.ReadFull(r, digests[k][:]); err != nil {
			return nil, unexpected(err)
		}
	}
	if rootOf(digests) != i.root {
		return nil, fmt.Errorf("%w: the blocks' digests are not those of the ref", ErrDigest)
	}
	return digests, nil
}

// readBlock reads a block into b and fails with ErrDigest unless it has that digest.
func readBlock(r io.Reader, b []byte, want Digest) error {
	if _, err := io.ReadFull(r, b); err != nil {
		return unexpected(err)
	}
	if sha256.Sum256(b) != want {
		return fmt.Errorf("%w: a block is not the one of the ref", ErrDigest)
	}
	return nil
}
