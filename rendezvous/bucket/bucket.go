// Package bucket is what the rendezvous and those who use it as a store agree upon: the JetStream stream in which objects lie. What
// its messages hold is for package fnlib/store/natsobj. It never touches a network.
//
// The bucket B is the stream FNW_B, over these subjects. A subject has one message at most, so that a new one takes the place
// of the old, and a message may have a time to live.
//
//	fnw.B.o.KEY   an object, KEY being Tokens of its key
//	fnw.B.c.ID.N  chunk N of the object that says ID
package bucket

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Default is the bucket that a rendezvous offers each of its jobs.
const Default = "fnwire"

// MaxReplicas is what JetStream allows.
const MaxReplicas = 5

// Bounds of what who uses a bucket may have the server keep in mind.
const (
	MaxConsumers  = 256 // lists under way at once; NATS' own bound is 1,000
	MaxAckPending = 1000
)

const (
	duplicates = 100 * time.Millisecond // the least; nobody looks for duplicates here
	inactive   = 30 * time.Second       // until a list whose reader died is forgotten
)

var legalName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// CheckName returns an error unless name may be a bucket's: 1 to 64 letters, digits, '-' and '_'.
func CheckName(name string) error {
	if !legalName.MatchString(name) {
		return fmt.Errorf("bucket %.80q: want 1 to 64 letters, digits, '-' and '_'", name)
	}
	return nil
}

// Stream returns the name of a bucket's stream.
func Stream(name string) string { return "FNW_" + name }

// Config returns what the stream of a bucket is made with. It is refused by no server, but one older than 2.11 does not know AllowMsgTTL.
func Config(name string, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: Stream(name), Description: "fnwire: states for those who are not there",
		Subjects:          []string{prefix(name) + ">"},
		MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, MaxBytes: -1, MaxMsgs: -1,
		Storage: jetstream.FileStorage, Replicas: replicas,
		AllowMsgTTL: true, Duplicates: duplicates, MaxConsumers: MaxConsumers,
		ConsumerLimits: jetstream.StreamConsumerLimits{InactiveThreshold: inactive, MaxAckPending: MaxAckPending},
		// A replica that lags behind would say that an object is not there which somebody was told is stored.
		AllowDirect: replicas <= 1,
	}
}

// Requests returns the subjects to which who uses a bucket publishes. None of them can change what the stream is.
func Requests(name string) []string {
	s := Stream(name)
	return []string{
		prefix(name) + ">",
		"$JS.API.STREAM.INFO." + s, "$JS.API.STREAM.MSG.GET." + s, "$JS.API.DIRECT.GET." + s + ".>",
		"$JS.API.STREAM.MSG.DELETE." + s, "$JS.API.STREAM.PURGE." + s,
		"$JS.API.CONSUMER.CREATE." + s + ".>", "$JS.API.CONSUMER.INFO." + s + ".*",
		"$JS.API.CONSUMER.MSG.NEXT." + s + ".>", "$JS.API.CONSUMER.DELETE." + s + ".>",
	}
}

func prefix(name string) string { return "fnw." + name + "." }

// Object returns the subject of the object with that key.
func Object(name, key string) string { return Objects(name) + Tokens(key) }

// Objects returns what the subjects of all objects start with.
func Objects(name string) string { return prefix(name) + "o." }

// Chunk returns the subject of a chunk.
func Chunk(name, id string, n int64) string { return fmt.Sprintf("%s%d", Chunks(name, id), n) }

// Chunks returns what the subjects of an object's chunks start with.
func Chunks(name, id string) string { return prefix(name) + "c." + id + "." }

// Tokens writes a key as tokens of a subject: each segment is one, in which a dot is "%".
func Tokens(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '%'
		}
		return r
	}, key)
}

// Key is the reverse of Tokens.
func Key(tokens string) (string, error) {
	if strings.Contains(tokens, "/") {
		return "", errors.New("a subject that no key leads to")
	}
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '%':
			return '.'
		}
		return r
	}, tokens), nil
}

// Filter returns a subject that matches those of all objects whose key starts with prefix, and of others only if they agree up to
// the last slash in it.
func Filter(name, prefix string) string {
	whole := prefix[:strings.LastIndexByte(prefix, '/')+1]
	return Objects(name) + Tokens(whole) + ">"
}
