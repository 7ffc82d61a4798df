// Package wake calls the HTTP hook of a name that somebody calls and nobody holds, so that a function is started only
// when there is something for it. It has the sender, for the rendezvous, and [Verify], for the function's HTTP entry.
// It knows nothing of NATS or of who holds which name, and what a hook answers is never passed on to anybody but the log.
//
// # On the wire
//
// A hook is called as Standard Webhooks 1.0 has it (https://www.standardwebhooks.com), with the symmetric signature:
//
//	POST <url of the hook>
//	content-type: application/json
//	webhook-id: wake_<26 letters and digits>     the same in all attempts
//	webhook-timestamp: 1674087231                Unix seconds of this attempt
//	webhook-signature: v1,<base64> [v1,<base64>...]
//
//	{"type":"fnwire.wake","timestamp":"2026-11-22T12:00:00Z","data":{
//	  "job":"<job ID>","name":"reduce-0","reason":"called","caller":"map-3","parked":1}}
//
// A signature is HMAC-SHA256 over webhook-id, a full stop, webhook-timestamp, a full stop, and the exact bytes of the
// body. There is one for each secret of the hook, so that secrets can be replaced one end at a time. A secret is "whsec_"
// and base64 of 24 to 64 random bytes. The body is at most [MaxEvent] bytes; fields may be added, and are to be ignored.
//
// "reason" is "called" (instances want a link; "parked" offers wait) or "stored" (a state was put into the store).
//
// # Answers
//
// 2xx means that the function is being started. 408, 425, 429, 5xx, silence and broken connections are tried again, after
// a pause that doubles, or the one that Retry-After asks for. Everything else, redirects included, is final.
package wake
