package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics has no label that a function can choose, so its size is bounded.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  *prometheus.CounterVec
	offers   *prometheus.CounterVec
	fenced   prometheus.Counter
	wakes    *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fnwire_rendezvous_requests_total", Help: "Requests answered, by verb and refusal code (ok if none)."},
			[]string{"verb", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fnwire_rendezvous_request_seconds", Help: "Time from request to reply; waits excluded.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 4, 9)}, []string{"verb"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fnwire_rendezvous_connections_refused_total", Help: "Connections that the embedded NATS refused, by reason."},
			[]string{"reason"}),
		offers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fnwire_rendezvous_offers_total", Help: "Offers, by what became of them: delivered, parked, refused, notices of stored states that found nobody (stored), and early states that did (undelivered)."}, []string{"result"}),
		fenced: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fnwire_rendezvous_takeovers_total", Help: "Names taken over from a live instance."}),
		wakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fnwire_rendezvous_wakes_total",
			Help: "Events for wake hooks, by what became of them: called, failed, unneeded (joined in the meantime), dropped (too many, or stopped)."},
			[]string{"result"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.refused, m.offers, m.fenced, m.wakes,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge := func(name, help string, value func(*service) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fnwire_rendezvous_" + name, Help: help},
			func() float64 {
				if v := s.serving.Load(); v != nil {
					return value(v)
				}
				return 0
			}))
	}
	gauge("names", "Records in the table: names held, or with offers parked.", func(v *service) float64 { return float64(v.table.used(nil).names) })
	gauge("table_bytes", "About what the table takes in memory.", func(v *service) float64 { return float64(v.table.used(nil).bytes) })
	gauge("waits", "Wait requests held.", func(v *service) float64 { return float64(v.waits.count()) })
	gauge("relays", "Relays known and alive.", func(v *service) float64 { return float64(len(v.relays.list(time.Now()))) })
	gauge("nats_connected", "1 while connected to NATS.", func(v *service) float64 {
		if v.nc.IsConnected() {
			return 1
		}
		return 0
	})
	return m
}

func (m *metrics) refusedConnection(why string) { m.refused.WithLabelValues(why).Inc() }
