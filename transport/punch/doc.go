// Package punch decides, for one peer, whether packets go directly or through the relay: it probes
// the peer's candidate addresses through both NATs, settles with the peer on one direct path, keeps
// that path open, doubts it as soon as it falls silent, gives it up and punches again.
//
// It is a pure function of (state, event, time): Machine.Step takes what happened and returns the
// datagrams to send and the time of the next call. It never opens a socket, reads a clock, starts a
// goroutine or takes a lock, and it never carries data.
//
// # Roles
//
// Of two instances one is controlling (the one that dials). Only it nominates: it chooses the path
// among those that answered, and gives it a generation, which starts at 2 and grows. A path is
// trusted by the controlling side after a full-size round trip, by the controlled side after a
// nomination from an address that answered one of its own probes.
//
// # Wire format
//
// All integers are big endian. Addresses are 16 bytes of IPv6, or of IPv4 in its mapped form
// (::ffff:a.b.c.d), followed by a port of 2 bytes. The MAC is the first 16 bytes of
// HMAC-SHA256(key, bytes 0..15 || bytes 32..end). Unknown flags and bytes after the last known one
// are ignored by the receiver; a type, a MAC or a length out of bounds is refused without an answer.
//
// Flags: 1 nominates; 2 the sender is controlling; 4 the sender doubts the path it probes;
// 8 the sender has given up the path of the generation that the packet carries.
// The role flag is what makes a packet that is reflected to its own sender worthless.
//
// PROBE, 64, or 1200 to 1420 bytes, instance to instance. A nomination has 1200 (PaddedSize), so that a
// path which is too narrow for QUIC is never chosen; a probe with flag 4 is as large as the packets that are sent on
// the path, so that one that has become too narrow for them is not trusted again.
//
//	offset  size  field
//	     0     1  type, 0x10
//	     1     1  flags
//	     2     2  generation: with flag 1 the one nominated, else the last that the sender nominated or accepted
//	     4     4  tag of the key  \ transaction id
//	     8     8  sequence number /
//	    16    16  MAC
//	    32        zeros to the end
//
// REPLY, exactly as long as the PROBE that it answers.
//
//	offset  size  field
//	     0     1  type, 0x11
//	     1     1  flags: 1 as in the PROBE, 2 and 8 the replier's own
//	     2     2  generation: with flag 1 as in the PROBE, else the last that the sender nominated or accepted
//	     4    12  transaction id of the PROBE
//	    16    16  MAC
//	    32    18  address that the PROBE came from
//	    50        zeros to the end
//
// CALL, through the relay only: "these are my candidates; probe them now". 32 to 348 bytes.
//
//	offset  size  field
//	     0     1  type, 0x12
//	     1     1  flags: 2, and 16 in the answer to a CALL, which is not answered
//	     2     2  count of candidates, at most 16
//	     4     2  zero
//	     6     2  generation up to which the sender has given its direct paths up
//	     8     8  sequence number
//	    16    16  MAC
//	    32  18*n  candidates; none = as before
//	32+18n     1  Mapping of the sender's NAT; a CALL may end before, which means 0, unknown
//	33+18n     1  its Step, in two's complement
//	34+18n    18  its Public address
//	52+18n     1  kind of attempt: 0 none; 1 "two new mappings of mine have these ports, aim a fan ahead of
//	              them"; 2 "my fan is open, sweep". A CALL may end before, which means 0
//	53+18n     1  zero
//	54+18n     2  number of the attempt; another one means another attempt
//	56+18n     2  kind 1: port of the first mapping; kind 2: the fan's ports lie between this one, exclusive,
//	58+18n     2  and this one (kind 1: port of the second mapping); both zero: they may be any
//
// The generation in plain probes and their replies lets a Machine that was made anew continue above
// the old one, and its peer notice that a path was forgotten.
//
// Sequence numbers of PROBE and CALL are one series, which starts at the microseconds since 1970 when the sender's endpoint began, by its
// clock then, and those since, by its monotonic clock, and grows by one: a new Machine goes on above an older one with the
// same key, though the clock was set back. A CALL must be newer than all before it; a PROBE must not have been seen before and
// must not be 256 or more behind the newest.
//
// # What a stranger's address can receive
//
// Offers are authenticated, but a dishonest instance may name anybody's address. An address that
// never answered receives in one round at most 9 probes of 64 bytes, plus one more for each nomination
// that came from it, plus a single nomination (one in the whole round) if an authentic PROBE came
// from it. A round has at most 20 addresses; at most 4 rounds come in a row and then one in RetryMin.
//
// Ports of a symmetric NAT are guessed (file hard.go) only while traffic flows, only at the IP address that the peer gives as its
// public one and that is among its candidates', and never if both sides would have to: per attempt 2,048 probes of 64
// bytes, at most 320 in a second, for random ports; 3 times up to 256, at most 3,200 in a second, for ports in order. Such datagrams are marked
// (Datagram.Guess), so that the owner can bound what goes to one address on behalf of all peers together. The side with the
// fan sends one probe from each socket to one address that the peer named: 256 for random ports, or up to 128.
package punch
