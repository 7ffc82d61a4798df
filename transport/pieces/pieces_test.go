package pieces

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// pair returns the two ends.
func pair() (a, b *Codec) {
	to, from := [32]byte{1}, [32]byte{2}
	return New(to, from), New(from, to)
}

func counting(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestGolden(t *testing.T) {
	a, _ := pair()
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"PIECE":    {a.Cut(nil, counting(5)), goldenPieces},
		"QUESTION": {a.Ask(nil, 2, 0x0102, 26), goldenQuestion},
		"ANSWER":   {a.Reply(nil, Message{Kind: Question, Subject: 2, Number: 0x0102}), goldenAnswer},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s: got  %s\nwant %s", name, got, c.want)
		}
	}
}

const (
	goldenPieces = "3000000100050000" + "fc19cbbe4ac587d2ec2bdb6162966dea" + "000102" +
		"3001000100050000" + "29b0637f623fc2c5e1a81b8332e7e9f5" + "020304"
	goldenQuestion = "3102010200000000" + "f2dea4c229480f3dee90e3388f6878f8" + "0000"
	goldenAnswer   = "3202010200000000" + "b084d748a6f6223b7b9a9ce929c43a57"
)

// Packets of every length come out as they went in, whichever piece is first, with others in between and pieces that come twice.
func TestCutAndJoin(t *testing.T) {
	a, b := pair()
	rng := rand.New(rand.NewPCG(1, 1))
	for n := 2; n+waiting < MaxPacket; n += waiting / 2 {
		var list [][]byte
		want := map[string]bool{}
		for i := range waiting {
			p := counting(n + i)
			p[0] = byte(i)
			want[string(p)] = true
			two := a.Cut(nil, p)
			if len(two) != 2*Len(len(p)) {
				t.Fatalf("%d bytes in two pieces of %d", len(p), len(two)/2)
			}
			list = append(list, two[:len(two)/2], two[len(two)/2:], two[:len(two)/2])
		}
		rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		for _, piece := range list {
			whole, err := b.Join(nil, piece)
			if err != nil {
				t.Fatal(err)
			}
			if whole != nil && !want[string(whole)] {
				t.Fatalf("got a packet of %d bytes that was not sent, or twice", len(whole))
			}
			delete(want, string(whole))
		}
		if len(want) > 0 {
			t.Fatalf("%d bytes: %d packets are missing", n, len(want))
		}
		b = New([32]byte{2}, [32]byte{1}) // of what came twice, halves are left
	}
}

// Of a packet whose other piece was lost little is kept, and not for long.
func TestLostPieces(t *testing.T) {
	a, b := pair()
	packet := counting(MaxPacket)
	two := a.Cut(nil, packet)
	for range 10 * waiting {
		other := a.Cut(nil, packet)
		if whole, err := b.Join(nil, other[:len(other)/2]); whole != nil || err != nil {
			t.Fatal("half a packet is none", err)
		}
	}
	for _, p := range [][]byte{two[:len(two)/2], two[len(two)/2:]} {
		whole, err := b.Join(nil, p)
		if err != nil {
			t.Fatal(err)
		}
		if whole != nil && !bytes.Equal(whole, packet) {
			t.Error("got another packet")
		}
	}
	kept := 0
	for _, p := range b.parts {
		kept += cap(p.b)
	}
	if kept > 23<<10 {
		t.Errorf("%d bytes kept", kept)
	}
}

// What nobody of the two has made, what was changed, and what is reflected is refused.
func TestRefuses(t *testing.T) {
	a, b := pair()
	two := a.Cut(nil, counting(100))
	piece := two[:len(two)/2]
	question := a.Ask(nil, 1, 7, 100)
	answer := a.Reply(nil, Message{Number: 7})
	for i, msg := range [][]byte{piece, question, answer} {
		if _, err := a.Open(msg); err == nil {
			t.Errorf("%d: took its own", i)
		}
		if _, err := a.Join(nil, msg); err == nil {
			t.Errorf("%d: joined its own", i)
		}
		for _, bad := range [][]byte{nil, msg[:len(msg)-1], append(bytes.Clone(msg), 0), make([]byte, len(msg)), make([]byte, 2*MaxPacket)} {
			_, err1 := b.Open(bad)
			_, err2 := b.Join(nil, bad)
			if err1 == nil || err2 == nil {
				t.Errorf("%d: took %d bytes", i, len(bad))
			}
		}
		for at := range msg {
			bad := bytes.Clone(msg)
			bad[at] ^= 1
			_, err1 := b.Open(bad)
			_, err2 := b.Join(nil, bad)
			if err1 == nil || err2 == nil {
				t.Errorf("%d: took another byte %d", i, at)
			}
		}
	}
	if m, err := b.Open(question); err != nil || m != (Message{Kind: Question, Subject: 1, Number: 7}) {
		t.Errorf("question: %+v, %v", m, err)
	}
	if m, err := b.Open(answer); err != nil || m.Kind != Answer || m.Number != 7 {
		t.Errorf("answer: %+v, %v", m, err)
	}
}

func TestDoesNotAllocate(t *testing.T) {
	a, b := pair()
	packet, buf, whole := counting(MaxPacket), make([]byte, 0, 2*Len(MaxPacket)), make([]byte, 0, MaxPacket)
	once := func() {
		two := a.Cut(buf, packet)
		_, _ = b.Join(whole, two[:len(two)/2])
		if w, err := b.Join(whole, two[len(two)/2:]); err != nil || !bytes.Equal(w, packet) {
			t.Fatal("lost", err)
		}
	}
	for range waiting {
		once()
	}
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// FuzzOpen: with a right MAC, any header is read or refused, and what is read is built again to the same bytes.
func FuzzOpen(f *testing.F) {
	a, _ := pair()
	f.Add(a.Cut(nil, counting(11))[:Len(11)])
	f.Add(a.Ask(nil, 2, 9, 40))
	f.Add(a.Reply(nil, Message{Subject: 1, Number: 9}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := pair()
		if len(b) >= HeaderBytes {
			b = bytes.Clone(b)
			b[6], b[7] = 0, 0
			copy(b[macOffset:], a.out.compute(b))
		}
		m, err := c.Open(b)
		whole, errJoin := c.Join(nil, b)
		if err == nil && errJoin == nil || whole != nil {
			t.Fatal("a single message is a question or answer, or half a packet")
		}
		if errJoin == nil {
			m = Message{Kind: Piece, Subject: b[1], Number: c.parts[(int(b[2])<<8|int(b[3]))%waiting].number, Length: c.parts[int(b[3])%waiting].length}
		} else if err != nil {
			return
		}
		again := bytes.Clone(b)
		a.out.seal(again, m)
		if !bytes.Equal(again, b) {
			t.Fatalf("%x\nbuilt again as %x", b, again)
		}
	})
}

// FuzzJoin: two pieces with right MACs, of whatever lengths and numbers, make the packet that both say, or none.
func FuzzJoin(f *testing.F) {
	f.Add([]byte("front of"), []byte("f a packet"), uint16(1), uint16(1), 15, 15)
	f.Fuzz(func(t *testing.T, front, back []byte, n1, n2 uint16, l1, l2 int) {
		a, b := pair()
		var got []byte
		for i, body := range [][]byte{front, back} {
			msg := append(make([]byte, HeaderBytes), body...)
			a.out.seal(msg, Message{Kind: Piece, Subject: byte(i), Number: []uint16{n1, n2}[i], Length: []int{l1, l2}[i]})
			got, _ = b.Join(nil, msg)
		}
		if got != nil && (n1 != n2 || uint16(l1) != uint16(l2) || len(got) != int(uint16(l1)) || !bytes.HasPrefix(got, front) || !bytes.HasSuffix(got, back)) {
			t.Fatalf("%d and %d bytes became %d", len(front), len(back), len(got))
		}
	})
}

func Example() {
	here, there := [32]byte{1}, [32]byte{2}
	a, b := New(here, there), New(there, here)
	packet := make([]byte, 1400)
	two := a.Cut(nil, packet)
	n := Len(len(packet))
	first, _ := b.Join(nil, two[:n])
	second, _ := b.Join(nil, two[n:])
	fmt.Println(n, len(first), len(second))
	// Output: 724 0 1400
}
