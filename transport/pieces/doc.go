// Package pieces carries packets over a way that has become too narrow for them: it cuts a packet in two, puts it together
// again at the other side, and asks whether packets of a size arrive. So nothing depends on IP fragments, which NATs and
// firewalls drop, nor on ICMP. It knows nothing of addresses or of what the packets mean, keeps no time, and sends nothing.
//
// # Wire format
//
// All integers are big endian. The first byte is 0x30 to 0x3f. The MAC is the first 16 bytes of HMAC-SHA256(key, bytes 0..7 ||
// bytes 24..end), where each direction has a key of its own. A type, a MAC or a length out of bounds is refused without an answer.
// A message that comes twice does no harm: QUIC drops what it has, and an answer is worth something for the newest question only.
//
// PIECE, 0x30: one of the two equal parts of a packet. If its length is odd, they have a byte in common, so that the pieces of
// a batch are of one size.
//
//	offset  size  field
//	     0     1  0x30
//	     1     1  0 front, 1 back
//	     2     2  number of the packet
//	     4     2  its length n, 2 to 1420
//	     6     2  zero
//	     8    16  MAC
//	    24     h  its first or last h bytes, h = (n+1)/2
//
// QUESTION, 0x31: does it arrive? 24 to 1420 bytes.
//
//	offset  size  field
//	     0     1  0x31
//	     1     1  subject: whatever the asker uses it for
//	     2     2  number
//	     4     4  zero
//	     8    16  MAC
//	    24        zeros to the end
//
// ANSWER, 0x32: it does. 24 bytes, laid out like a QUESTION, with subject and number of the one that it answers.
package pieces
