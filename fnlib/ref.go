package fnlib

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/internal/seal"
)

// Ref stands for a state that Put keeps. It is at most MaxRef bytes of text without spaces, fits into the payload of an invocation or a
// URL's query, and is of use to holders of the job key only: what it says is sealed under it, and cannot be changed.
//
// It is "fnwire:" and, in base64 (RFC 4648, section 5, without padding), what package internal/seal makes of this under the name "ref".
// Integers are big endian.
//
//	offset  size  field
//	     0     1  version, 2
//	     1    16  ID of the state, random
//	    17     8  size of the state in bytes
//	    25    32  SHA-256 of the SHA-256 of each of its blocks; a block has 131,072 bytes, the last one fewer
//	    57     4  when it expires, in seconds of Unix time
//	    61     1  n, number of functions that hold it, at most 8; none: it is in the store
//	    62        n names, each a byte of length, 1 to 64, and that many bytes
type Ref string

// MaxRef is the most bytes that a Ref may have. Four names of the greatest length fit.
const MaxRef = 512

const (
	refPrefix  = "fnwire:"
	refPurpose = "ref"
	refVersion = 2
	refFixed   = 62
	maxHolders = 8

	blockSize   = 128 << 10 // of which each function of a chain is one behind the one before; see lead.go
	maxRefBytes = 32 << 30  // of a state, so that its digests take 8 MiB
)

// Errors of Get and of what else takes a Ref.
var (
	// ErrRef: the text is not a ref of this job.
	ErrRef = errors.New("not a ref of this job")
	// ErrExpired: the time of the state is over.
	ErrExpired = errors.New("the ref has expired")
	// ErrNotFound: nobody who can be asked holds the state.
	ErrNotFound = errors.New("the state is not there")
	// ErrReadOut: the state was read as often as its Put allowed. It matches ErrNotFound too.
	ErrReadOut = fmt.Errorf("%w: it was read as often as its Put allowed", ErrNotFound)
)

// refInfo is what a ref says.
type refInfo struct {
	id      stateID
	size    int64
	root    Digest
	expires time.Time // a whole second
	holders []string  // the first is who has put it
}

// blocksOf is how many blocks a state has.
func blocksOf(size int64) int { return int((size + blockSize - 1) / blockSize) }

// heldBy reports whether the ref names a holder.
func (i refInfo) heldBy(name string) bool { return slices.Contains(i.holders, name) }

// blockLen is how many bytes a block has.
func (i refInfo) blockLen(block int) int { return int(min(i.size-int64(block)*blockSize, blockSize)) }

// rootOf is the digest of digests.
func rootOf(digests []Digest) Digest {
	h := sha256.New()
	for _, d := range digests {
		h.Write(d[:]) // never fails (hash.Hash)
	}
	return Digest(h.Sum(nil))
}

// fits reports whether the text of the ref is within MaxRef.
func (i refInfo) fits() bool {
	plain := refFixed
	for _, h := range i.holders {
		plain += 1 + len(h)
	}
	return len(i.holders) <= maxHolders && len(refPrefix)+base64.RawURLEncoding.EncodedLen(int(seal.Size(int64(plain)))) <= MaxRef
}

// add names another holder. If there is no room, one that was added before is left out.
func (i refInfo) add(name string) refInfo {
	if i.heldBy(name) {
		return i
	}
	i.holders = append(slices.Clone(i.holders), name)
	for !i.fits() {
		i.holders = slices.Delete(i.holders, 1, 2)
	}
	return i
}

func appendRef(b []byte, i refInfo) []byte {
	b = append(append(b, refVersion), i.id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(i.size))
	b = append(b, i.root[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(i.expires.Unix()))
	b = append(b, byte(len(i.holders)))
	for _, h := range i.holders {
		b = append(append(b, byte(len(h))), h...)
	}
	return b
}

// readRef reads what appendRef wrote, all of it.
func readRef(b []byte) (i refInfo, err error) {
	if len(b) < refFixed || b[0] != refVersion {
		return i, fmt.Errorf("%w: it was made by another version of fnwire", ErrRef)
	}
	size := binary.BigEndian.Uint64(b[17:])
	if size > maxRefBytes || b[61] > maxHolders {
		return i, fmt.Errorf("%w: %d bytes at %d holders", ErrRef, size, b[61])
	}
	i = refInfo{
		id: stateID(b[1:]), size: int64(size), root: Digest(b[25:]),
		expires: time.Unix(int64(binary.BigEndian.Uint32(b[57:])), 0),
	}
	rest := b[refFixed:]
	for range b[61] {
		if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
			return i, fmt.Errorf("%w: cut short", ErrRef)
		}
		name := string(rest[1 : 1+rest[0]])
		if err := job.CheckName(name); err != nil {
			return i, fmt.Errorf("%w: holder: %w", ErrRef, err)
		}
		i.holders = append(i.holders, name)
		rest = rest[1+len(name):]
	}
	if len(rest) > 0 {
		return i, fmt.Errorf("%w: %d bytes too many", ErrRef, len(rest))
	}
	return i, nil
}

// sealRef makes the text.
func sealRef(key job.Key, i refInfo) (Ref, error) {
	sealed, err := seal.Bytes(key.Derive(refPurpose), refPurpose, appendRef(nil, i))
	if err != nil {
		return "", err
	}
	return Ref(refPrefix + base64.RawURLEncoding.EncodeToString(sealed)), nil
}

// openRef reads the text.
func openRef(key job.Key, ref Ref) (i refInfo, err error) {
	text, ok := strings.CutPrefix(string(ref), refPrefix)
	if !ok || len(ref) > MaxRef || strings.ContainsAny(text, "\r\n") { // which package base64 skips
		return i, fmt.Errorf("%w: want %q and at most %d bytes in all", ErrRef, refPrefix, MaxRef)
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return i, fmt.Errorf("%w: %w", ErrRef, err)
	}
	plain, err := seal.Open(key.Derive(refPurpose), refPurpose, sealed)
	if err != nil {
		return i, fmt.Errorf("%w: it was made under another job key, or changed since", ErrRef)
	}
	return readRef(plain)
}
