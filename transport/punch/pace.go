package punch

import "time"

// How long a direct path is left idle. Each NAT on it forgets a mapping that nothing has used for some time: RFC 4787, REQ-5, asks
// for two minutes at least, many give 30 s, a few 10 s. RFC 8445, 11, wants a keep-alive every 15 s, which is what a path begins with.
const (
	keepAlive      = 15 * time.Second
	keepAliveLeast = 5 * time.Second
	// KeepAliveMost leaves room, with the jitter of a tenth, below the 30 s of many NATs.
	KeepAliveMost = 25 * time.Second
	// neighbourAlive is for a path inside one network, on which no NAT can forget anything: a firewall's table, the
	// shortest of which are those of NATs that keep to the RFC.
	neighbourAlive = time.Minute

	survivals = 4                // of a pause in a row, before a longer one is tried
	firstBan  = 10 * time.Minute // until a pause that was too long is tried again; doubles to
	mostBan   = 4 * time.Hour
)

// Pace is what was learnt about the longest pause after which a path still works. A Machine has one for its peer; its owner
// keeps another for all peers, whose paths share the NAT here, and hands on what that one says (Traffic.KeepAlive).
// Its zero value is the beginning. It is not safe for concurrent use.
type Pace struct {
	pause    time.Duration // 0 = keepAlive
	fatal    time.Duration // the shortest that was too long; 0 = none
	survived time.Duration // the longest that was not
	run      int           // survivals of pause in a row
	ban      time.Duration // of the last fatal one
	until    time.Time     // no longer pause is tried before
}

// Pause is how long a path is left idle at present.
func (p *Pace) Pause() time.Duration {
	if p.pause == 0 {
		return keepAlive
	}
	return p.pause
}

// Survived notes that a path still worked after a pause. Some of these make room for longer pauses.
func (p *Pace) Survived(now time.Time, pause time.Duration) {
	p.survived = max(p.survived, pause)
	if p.fatal > 0 && pause >= p.fatal { // what has failed was something else
		p.fatal, p.until = 0, time.Time{}
	}
	if pause < p.Pause()*9/10 {
		return
	}
	if p.run++; p.run >= survivals && !now.Before(p.until) {
		p.pause, p.fatal, p.run = min(p.Pause()*5/4, KeepAliveMost), 0, 0
	}
}

// Died notes that a path was found dead after a pause. If a longer one was survived before, that is held against it only when it
// happens again: a NAT's time-out does not change, but peers end, and networks fail.
func (p *Pace) Died(now time.Time, pause time.Duration) {
	if pause <= p.survived {
		p.survived = 0
		return
	}
	p.pause = max(min(p.Pause(), pause*2/3), keepAliveLeast)
	p.fatal, p.run = pause, 0
	p.ban = min(max(2*p.ban, firstBan), mostBan)
	p.until = now.Add(p.ban)
}
