package transport

import (
	"sync"
	"time"

	"github.com/fnwire/fnwire/transport/punch"
)

// pace is what all peers' paths together have shown of the NAT here: how long they may be idle.
type pace struct {
	mu   sync.Mutex // guards pace
	pace punch.Pace
}

func (p *pace) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pace.Pause()
}

// note takes what one path has shown, and reports whether the others must be probed sooner than they think.
func (p *pace) note(now time.Time, survived, died time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.pace.Pause()
	if survived > 0 {
		p.pace.Survived(now, survived)
	}
	if died > 0 {
		p.pace.Died(now, died)
	}
	return p.pace.Pause() < before
}

// forget is for another network.
func (p *pace) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pace = punch.Pace{}
}

// notePause hands on what the machine has learnt about pauses.
func (p *remote) notePause(out punch.Output) {
	if out.Survived == 0 && out.Died == 0 || !p.hub.pace.note(time.Now(), out.Survived, out.Died) {
		return
	}
	for _, r := range p.hub.tables.Load().peers {
		r.wake()
	}
}
