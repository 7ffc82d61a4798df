package server

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves /metrics for Prometheus, /healthz (the process answers) and /readyz (the sockets are
// open and a token key is known, so instances can bind). It belongs on a loopback address: the counts
// tell strangers how busy the relay is.
func (s *Server) Handler() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{s})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-s.ready:
			if s.cfg.TokenKey() != nil {
				_, _ = w.Write([]byte("ok\n"))
				return
			}
			http.Error(w, "no token key yet: the rendezvous has not answered", http.StatusServiceUnavailable)
		default:
			http.Error(w, "sockets not open yet", http.StatusServiceUnavailable)
		}
	})
	return mux
}

// collector turns Stats into metrics when asked.
type collector struct{ s *Server }

// Describe sends nothing: the set of metrics is unchecked.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends all metrics.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	st := c.s.Stats()
	send := func(kind prometheus.ValueType, name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("fnwire_relay_"+name, help, nil, nil), kind, v)
	}
	by := func(name, help, label string, m map[string]uint64) {
		d := prometheus.NewDesc("fnwire_relay_"+name, help, []string{label}, nil)
		for k, v := range m {
			ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), k)
		}
	}
	send(prometheus.GaugeValue, "sessions", "Sessions now.", float64(st.Sessions))
	send(prometheus.GaugeValue, "connections", "Connections over TLS now.", float64(st.Connections))
	for _, m := range []struct {
		name, help string
		v          uint64
	}{
		{"packets_in_total", "Data frames received from sessions.", st.PacketsIn},
		{"packets_out_total", "Data frames forwarded.", st.PacketsOut},
		{"bytes_in_total", "Bytes of data frames received from sessions.", st.BytesIn},
		{"bytes_out_total", "Bytes of data frames forwarded.", st.BytesOut},
		{"challenges_total", "Binds accepted.", st.Challenged},
		{"bound_total", "Addresses proven.", st.Bound},
		{"sessions_expired_total", "Sessions that expired.", st.Ended},
		{"stun_total", "STUN binding requests answered.", st.STUN},
	} {
		send(prometheus.CounterValue, m.name, m.help, float64(m.v))
	}
	by("dropped_total", "Packets dropped.", "reason", st.Dropped)
	by("refused_total", "Binds refused.", "reason", st.Refused)
}
