package rendezvous

import (
	"strings"

	"github.com/fnwire/fnwire/internal/job"
)

// Verbs that the service answers, the fourth token of a request's subject being the job.
const (
	VerbJoin   = "join"
	VerbRenew  = "renew"
	VerbLeave  = "leave"
	VerbLookup = "lookup"
	VerbList   = "list"
	VerbOffer  = "offer"
	VerbWait   = "wait"
)

// Verbs lists all verbs.
func Verbs() []string {
	return []string{VerbJoin, VerbRenew, VerbLeave, VerbLookup, VerbList, VerbOffer, VerbWait}
}

const (
	subjectPrefix = "fnwire.v1."
	// SubjectAnnounce is where relays announce themselves.
	SubjectAnnounce = subjectPrefix + "relay.announce"
	// RelayInbox is the prefix of the subjects at which relays get their replies.
	RelayInbox = "_INBOX_relay"
	// everyone is not a peer ID (those start with 12D3 or Qm), so it cannot clash with one.
	everyone = "all"
)

// SubjectFor returns the subject of requests with this verb for this job. The job may be "*".
func SubjectFor(verb, jobID string) string { return subjectPrefix + verb + "." + jobID }

// SubjectInbox returns the subject that reaches one instance.
func SubjectInbox(j job.ID, peerID string) string {
	return subjectPrefix + "inbox." + j.String() + "." + peerID
}

// SubjectInboxAll returns the subject that reaches all instances of a job.
func SubjectInboxAll(j job.ID) string { return SubjectInbox(j, everyone) }

// SubjectAck returns the subject at which instances acknowledge envelopes to one copy of the service,
// less the last token, which tells the envelope. Job and copy may be wildcards.
func SubjectAck(jobID, serviceCopy string) string {
	return subjectPrefix + "ack." + jobID + "." + serviceCopy
}

// SubjectJoined returns the subject on which copies of the service tell one another of a join.
func SubjectJoined(j job.ID, name string) string {
	return subjectPrefix + "event.joined." + j.String() + "." + name
}

// SubjectJoinedAll is what a copy subscribes to.
const SubjectJoinedAll = subjectPrefix + "event.joined.*.*"

// ParseJoined is the inverse of SubjectJoined.
func ParseJoined(subject string) (j job.ID, name string, ok bool) {
	rest, ok := strings.CutPrefix(subject, subjectPrefix+"event.joined.")
	if !ok {
		return job.ID{}, "", false
	}
	id, name, ok := strings.Cut(rest, ".")
	if !ok || job.CheckName(name) != nil {
		return job.ID{}, "", false
	}
	j, err := job.ParseID(id)
	return j, name, err == nil
}

// JobInbox returns the prefix of all reply subjects of a job.
func JobInbox(j job.ID) string { return "_INBOX_" + j.String() }

// ReplyAllowed reports whether the service may answer a request of this job at reply. Without this
// check anybody could have the service publish where he himself may not.
func ReplyAllowed(j job.ID, reply string) bool {
	return strings.HasPrefix(reply, JobInbox(j)+".") && !strings.ContainsAny(reply, "*> \t\r\n")
}
