package suite

import (
	"context"
	"fmt"

	"github.com/fnwire/fnwire/experiments/results"
	"github.com/fnwire/fnwire/experiments/service"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/world"
)

// What stores take.
const (
	serviceMeasured = "measured"
	serviceModelled = "modelled"
)

// serviceSetting is the setting of experiments that have stores.
func serviceSetting() Setting {
	return Setting{"service", serviceMeasured, "", "what a store takes: " + serviceMeasured + ", as fast as its server is here, or " + serviceModelled +
		", slowed down to what it takes in a cloud (package experiments/service); NATS is always measured"}
}

// stores are those of an experiment with one world, each started when it is first asked for. They are for one goroutine.
type stores struct {
	life     context.Context //nolint:containedctx // of the stores, which outlive a measurement
	modelled bool
	slow     int // as the network is
	opened   map[string]worker.Store
}

// stores returns those that the setting service says. They end with life.
func (r *run) stores(life context.Context) (*stores, error) {
	modelled, err := setting(r, "service", func(s string) (bool, error) {
		if s != serviceMeasured && s != serviceModelled {
			return false, fmt.Errorf("%q: want %s or %s", s, serviceMeasured, serviceModelled)
		}
		return s == serviceModelled, nil
	})
	return &stores{life: life, modelled: modelled, slow: r.slow(), opened: make(map[string]worker.Store)}, err
}

// open returns how functions open a store (wayRedis, wayS3 or wayNATS), and notes in the record what of it is modelled.
func (s *stores) open(w *world.World, rec *results.Record, way string) (worker.Store, error) {
	var m service.Model
	if s.modelled {
		m = map[string]service.Model{wayRedis: service.Redis(), wayS3: service.S3()}[way].Slowed(s.slow)
	}
	if !m.None() {
		rec.Modelled = append(rec.Modelled, m.Says)
	}
	if o, ok := s.opened[way]; ok {
		return o, nil
	}
	var st *world.Store
	var err error
	switch way {
	case wayNATS:
		return w.NATSStore(), nil
	case wayRedis:
		st, err = w.StartRedis(s.life, world.InMemory, m)
	case wayS3:
		st, err = w.StartS3(s.life, m)
	default:
		err = fmt.Errorf("no store %q", way)
	}
	if err != nil {
		return worker.Store{}, err
	}
	s.opened[way] = st.Opened()
	return s.opened[way], nil
}
