package fnlib

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fnwire/fnwire/internal/hostile"
	"github.com/fnwire/fnwire/internal/job"
)

func someRef(holders ...string) refInfo {
	var i refInfo
	for k := range i.root {
		i.root[k] = byte(k)
	}
	copy(i.id[:], i.root[:])
	i.size, i.expires, i.holders = 258, time.Unix(259, 0), holders
	return i
}

// Golden bytes of what a ref says, of GET and of GOT.
func TestRefGolden(t *testing.T) {
	i := someRef("map-3", "b")
	const id = "000102030405060708090a0b0c0d0e0f"
	const root = id + "101112131415161718191a1b1c1d1e1f"
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"ref": {appendRef(nil, i), "02" + id + "0000000000000102" + root + "00000103" + "02" + "05" + "6d61702d33" + "01" + "62"},
		"GET": {
			appendGet(nil, getRequest{what: getDigests, id: i.id, by: stateID(i.root[16:]), first: 258, count: 4, place: 7}),
			"08" + "01" + root + "00000102" + "00000004" + "00000007",
		},
		"GOT":     {appendGot(nil, gotHeader{status: gotReadOut, left: 258, size: 259}), "09" + "03" + "00000102" + "0000000000000103" + "00000000" + "00"},
		"lead":    {appendGot(nil, gotHeader{left: noLimit, size: 1, place: 2, lead: "map-3"}), "09" + "00" + "ffffffff" + "0000000000000001" + "00000002" + "05" + "6d61702d33"},
		"digests": {appendDigests(nil, []Digest{i.root, {1}}), root + "01" + strings.Repeat("00", 31)},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, c.want)
		}
	}
	one, two := Digest{1}, Digest{2}
	if want := sha256.Sum256(append(one[:], two[:]...)); rootOf([]Digest{one, two}) != want {
		t.Error("the root is not the digest of the digests")
	}
}

// A text that was made before is read for ever.
func TestRefTextGolden(t *testing.T) {
	key, err := job.ParseKey(base64.StdEncoding.EncodeToString(make([]byte, job.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	const text = "fnwire:Zm53MeKERGXWQopM0GLzGJm_GqksjmLzGagBhTrz0ViIUVkWPSw776b9iSWoV9WGbwzE63yCBsS-8wF0MvZNxtGKi06aGGuL45UTCeovWJhnjownIPb9VrU9hB_OHYN-SOtuRYP82zxgA7tMQGZM_w7eraUJoQzQVvk"
	got, err := openRef(key, text)
	if want := someRef("map-3", "b"); err != nil || !bytes.Equal(appendRef(nil, got), appendRef(nil, want)) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A ref is within its bound, whatever the names, and holders that were added make room for others.
func TestRefIsBounded(t *testing.T) {
	key := job.NewKey()
	long := func(c byte) string { return strings.Repeat(string(c), job.MaxName) }
	i := someRef(long('a'), long('b'), long('c'), long('d'))
	ref, err := sealRef(key, i)
	if err != nil || len(ref) > MaxRef || !i.fits() {
		t.Fatalf("%d bytes, %v", len(ref), err)
	}
	if strings.ContainsFunc(string(ref), func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune("\"'\\&<>%+/=?#", r)
	}) {
		t.Errorf("%s is no plain word", ref)
	}
	i = i.add(long('e'))
	if ref, err = sealRef(key, i); err != nil || len(ref) > MaxRef {
		t.Errorf("%d bytes, %v", len(ref), err)
	}
	if got := strings.Join(i.holders, " "); got != strings.Join([]string{long('a'), long('c'), long('d'), long('e')}, " ") {
		t.Errorf("holders %s", got)
	}
	short := someRef("a")
	for _, name := range []string{"b", "c", "d", "e", "f", "g", "h", "i", "b", "i"} {
		short = short.add(name)
	}
	if got := strings.Join(short.holders, ""); got != "acdefghi" && got != "adefghib" {
		t.Errorf("holders %s", got)
	}
	if len(short.holders) != maxHolders {
		t.Errorf("%d holders", len(short.holders))
	}
}

// What is not as it was made, or made under another key, is no ref.
func TestRefIsAuthenticated(t *testing.T) {
	key := job.NewKey()
	ref, err := sealRef(key, someRef("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openRef(job.NewKey(), ref); !errors.Is(err, ErrRef) {
		t.Errorf("under another key: %v", err)
	}
	bad := []Ref{"", "fnwire:", "fnwire:!", ref[1:], ref[:len(ref)-1], ref + "A", ref + "\n", " " + ref, Ref(strings.Repeat("x", MaxRef+1)), Ref(refPrefix + strings.Repeat("A", MaxRef))}
	for k := len(refPrefix); k < len(ref); k++ {
		b := []byte(ref)
		if b[k]++; b[k] > 'y' {
			b[k] = 'A'
		}
		bad = append(bad, Ref(b))
	}
	for _, r := range bad {
		if _, err := openRef(key, r); !errors.Is(err, ErrRef) {
			t.Errorf("%q: %v", r, err)
		}
	}
	for name, b := range map[string][]byte{
		"version":    append([]byte{1}, appendRef(nil, someRef("a"))[1:]...),
		"cut":        appendRef(nil, someRef("a"))[:refFixed+1],
		"more":       append(appendRef(nil, someRef("a")), 0),
		"bad name":   appendRef(nil, someRef("a b")),
		"no name":    appendRef(nil, someRef("")),
		"size":       appendRef(nil, refInfo{size: maxRefBytes + 1}),
		"many names": appendRef(nil, someRef("a", "b", "c", "d", "e", "f", "g", "h", "i")),
	} {
		if _, err := readRef(b); !errors.Is(err, ErrRef) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRef(f *testing.F) {
	key := job.NewKey()
	for _, b := range hostile.Of(
		appendRef(nil, someRef()),
		appendRef(nil, someRef("map-3", "b")),
		appendRef(nil, refInfo{size: maxRefBytes, expires: time.Unix(1<<32-1, 0), holders: []string{strings.Repeat("x", job.MaxName)}}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := readRef(b); err == nil && !bytes.Equal(appendRef(nil, i), b) {
			t.Errorf("%x does not come back", b)
		} else if err != nil && !errors.Is(err, ErrRef) {
			t.Error(err)
		}
		for _, text := range []string{string(b), refPrefix + base64.RawURLEncoding.EncodeToString(b)} {
			if _, err := openRef(key, Ref(text)); !errors.Is(err, ErrRef) {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

func FuzzGet(f *testing.F) {
	for _, b := range hostile.Of(
		appendGet(nil, getRequest{what: getDigests, count: maxGetBlocks}),
		appendGet(nil, getRequest{what: getDone, id: stateID{1}, by: stateID{2}}),
		appendGet(nil, getRequest{first: 1<<32 - 1, count: 1}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != streamGet {
			return
		}
		g, err := readGet(bytes.NewReader(b[1:]))
		if err == nil && (!bytes.HasPrefix(b, appendGet(nil, g)) || g.count > maxGetBlocks) {
			t.Errorf("%x does not come back", b)
		}
	})
}

// FuzzGot holds that no answer is taken but one with the digests that the ref stands for, and blocks that have these.
func FuzzGot(f *testing.F) {
	block := []byte("block")
	digest := Digest(sha256.Sum256(block))
	ref := refInfo{size: int64(len(block)), root: rootOf([]Digest{digest})}
	head := appendGot(nil, gotHeader{left: noLimit, size: 5})
	for _, b := range hostile.Of(
		append(appendDigests(head, []Digest{digest}), block...),
		append(appendDigests(head, []Digest{digest}), "black"...),
		appendGot(nil, gotHeader{status: gotExpired}),
		append(appendGot(nil, gotHeader{left: noLimit, size: 5, place: 2, lead: "map-3"}), digest[:]...),
		appendGot(nil, gotHeader{status: gotPassed, left: 7}),
	) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		g, err := readGot(r)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, appendGot(nil, g)) {
			t.Errorf("%x does not come back", b)
		}
		digests, err := readDigests(r, ref)
		if err != nil {
			return
		}
		got := make([]byte, 5)
		if err := readBlock(r, got, digests[0]); err == nil && !bytes.Equal(got, block) {
			t.Errorf("took %q", got)
		}
	})
}

func TestGetLimits(t *testing.T) {
	for name, g := range map[string]getRequest{
		"what":       {what: getDrop + 1},
		"blocks":     {count: maxGetBlocks + 1},
		"done of 1":  {what: getDone, count: 1},
		"drop of 0+": {what: getDrop, first: 1},
		"drop place": {what: getDrop, place: 1},
	} {
		if _, err := readGet(bytes.NewReader(appendGet(nil, g)[1:])); !errors.Is(err, errWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{
		"status": appendGot(nil, gotHeader{status: gotComing + 1}),
		"name":   appendGot(nil, gotHeader{place: 2, lead: "a.b"}),
		"long":   appendGot(nil, gotHeader{place: 2, lead: strings.Repeat("x", job.MaxName+1)}),
		"none":   appendGot(nil, gotHeader{status: gotUnknown, place: 2, lead: "b"}),
		"place":  appendGot(nil, gotHeader{status: gotUnknown, place: 2}),
		"first":  appendGot(nil, gotHeader{lead: "b"}),
		"size":   appendGot(nil, gotHeader{size: maxRefBytes + 1}),
		"type":   make([]byte, gotSize),
	} {
		if _, err := readGot(bytes.NewReader(b)); !errors.Is(err, errWire) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
