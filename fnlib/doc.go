// Package fnlib is what a function imports. A function joins a job under a name and then sends state
// to, or opens a stream to, any other function of the job by name:
//
//	node, err := fnlib.Join(ctx, fnlib.FromEnv())
//	receipt, err := node.Send(ctx, "reduce-0", "part-7", bytes.NewReader(part))
//	in, err := node.Receive(ctx)
//	conn, err := node.Dial(ctx, "reduce-0")
//	ref, err := node.Put(ctx, bytes.NewReader(part), fnlib.PutOptions{}) // which another one gets
//
// Bytes flow over one end-to-end encrypted QUIC connection for each pair of functions: over a relay
// at once, directly as soon as the NATs between them are punched. A small state need not wait for that connection (Config.EarlyBytes). It never looks inside the state, but to see
// whether a chunk of it is there sooner if it is compressed (Config.NoCompress), and
// never keeps more of it in memory than QUIC's windows.
//
// # Platforms that freeze
//
// A function platform such as AWS Lambda stops a process the moment its handler has returned, lets it go on when the next event comes, for
// minutes or never, and has it end at some time. A node lives through that: paths, relays, the name and the connection to the rendezvous
// are looked after as soon as a freeze of more than 3 s is over, within some 1.5 s, those of peers that nobody talks to within some 6 s, and links go on for 3 minutes. So
//
//   - join once for each instance, not once for each event; join again if Err tells that the node is closed;
//   - accept what was received before the handler returns: what is not accepted then is not lost, but its sender waits;
//   - call Flush last;
//   - on SIGTERM call Close, which gives what was not delivered to Config.Store. Lambda sends SIGTERM only to a process that has registered
//     an extension (lambda.WithEnableSIGTERM does), and kills it 500 ms later: there 400 ms are a fit Config.Grace;
//   - bear in mind that instances which run at the same time need different names: the newest of a name closes the others.
//
// # Streams on the wire
//
// A QUIC stream starts with a byte that tells its type. Integers are big endian.
//
// CONN, a net.Conn to a service of the peer; both ways are the application's afterwards. If nobody
// listens, the stream is reset with code 0x10. Codes from 0x100 on are the application's.
//
//	offset  size  field
//	     0     1  type, 0x01
//	     1     1  n, length of the service's name, at most 64
//	     2     n  service
//
// SEND, one state from the opener to the other end.
//
//	offset  size  field
//	     0     1  type, 0x02
//	     1     1  flags: 1 resume; others are refused
//	     2     2  n, length of the key, at most 1024
//	     4     8  size of the state in bytes, all ones if not known
//	    12    16  ID of the state, random
//	    28     4  milliseconds since the first header with that ID, or since the state went early; 0 if this is the first that is heard of it
//	    32     n  key
//	          then chunks: 4 bytes length (1 to 1,048,576), the bytes; or, compressed,
//	                       4 bytes length + 2^31, 4 bytes n (at most 262,144, and more than the length),
//	                       a Zstandard frame (RFC 8878) of that length that stands for n bytes;
//	          then the trailer: 4 bytes zero, 8 bytes total, 32 bytes SHA-256 of the state;
//	          the end of the stream follows when the opener has the REPLY
//
// With resume set the sender has lost the stream before, and sends nothing more until TAKEN says from what offset to go on. An
// instance that does not know the ID says 0; one that has settled the state says REPLY again. The digest is that of the
// whole state as its sender has read it once, not compressed, as all offsets and totals are, so that two versions of it are never taken for one.
//
// TAKEN, the other end's word on a SEND stream whose state is of more than 2048 bytes or of unknown size, or that resumes: its
// application has begun to read the state, or reads on after it has resumed, and has read so many bytes of it. It is said again for each MiB. A sender keeps
// at most 16 MiB that were not taken yet, to send them again if the link breaks. Of states for which it was never said, a sender has at
// most 8 MiB under way on a link, each counting as its size and at most 512 KiB; others wait with their header sent.
//
//	offset  size  field
//	     0     1  type, 0x06
//	     1     8  bytes
//
// REPLY, the other end's last word on a SEND stream.
//
//	offset  size  field
//	     0     1  type, 0x03
//	     1     1  status: 0 accepted, 1 rejected by the application, 2 digest differs, 3 malformed, 4 not known any more
//	     2     2  n, length of the reason, at most 1024
//	     4     8  bytes received
//	    12    32  SHA-256 of them
//	    44     n  reason, text
//
// PING, answered with the same nine bytes.
//
//	offset  size  field
//	     0     1  type, 0x04
//	     1     8  nonce
//
// GET, a request for a state that the other end keeps (see Put), in blocks of 131,072 bytes, the last one shorter. The answer is a GOT. A stream may
// carry further requests after the first; they are answered in turn.
//
//	offset  size  field
//	     0     1  type, 0x08
//	     1     1  what: 0 blocks, 1 the digests of all blocks and then blocks, 2 nothing: this Get has read the state to its end,
//	              3 nothing: the state is to be deleted
//	     2    16  ID of the state, from its ref
//	    18    16  ID of the Get, random
//	    34     4  first block; 0 with what 2 and 3
//	    38     4  blocks, at most 64; 0 with what 2 and 3
//	    42     4  place of the Get in the chain of those that get the state, as its holder has told it; 0: it has none; 0 with what 2 and 3
//
// GOT, the answer. A Get that says more than once that it has read the state is counted once.
//
//	offset  size  field
//	     0     1  type, 0x09
//	     1     1  status: 0 here it is, or noted; 1 not known; 2 expired; 3 read as often as allowed; 4 deleted as somebody wished;
//	              5 too many requests of this peer, 16, are under way; 6 the answerer gets it itself, and has let go the first block that was asked for;
//	              7 the answerer gets it itself, and sends each block when it has it
//	     2     4  how many Gets may still read it to its end, all ones: any number; 0 with what 2 and 3, and after a status that is not 0,
//	              but with status 6 the first block that is still there
//	     6     8  size of the state in bytes; 0 likewise
//	    14     4  place of the Get that has asked in that chain, from 1 on; 0: none; 0 after a status that is not 0
//	    18     1  n, length of the name of a function that has the place before, and is to be asked for the blocks; 0: none
//	    19     n  that name
//	              then, with status 0, what was asked for: 32 bytes SHA-256 of each block of the state, and if n is 0 the bytes of the blocks;
//	              with status 7 before each block a byte 1, and before that, several times a second while the answerer waits for it, a byte 0
//
// BYE, before the opener closes the link. It is answered with one byte, 0x05, when the other end has
// seen as many streams and has read all of them to their end, or after two seconds.
//
//	offset  size  field
//	     0     1  type, 0x05
//	     1     4  CONN, SEND and GET streams that the opener has opened on this link
//
// # Early states
//
// What goes beside an envelope of package rendezvous' KindEarly is what a SEND stream carries up to its trailer, without resume, sealed by package seal under the
// job key's derivative for "early state" and the MAC of the envelope in hexadecimal as its name. Envelopes of KindSaid carry, sealed likewise for
// "word on an early state" and without a name, the 16 bytes of the state's ID and a REPLY.
package fnlib
