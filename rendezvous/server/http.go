package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Handler serves /healthz (the process lives), /readyz (requests are answered) and /metrics.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintln(w, "ok") // the asker has gone
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		v := s.serving.Load()
		switch {
		case v == nil:
			http.Error(w, "not serving", http.StatusServiceUnavailable)
		case !v.nc.IsConnected():
			http.Error(w, "not connected to NATS", http.StatusServiceUnavailable)
		default:
			_, _ = fmt.Fprintln(w, "ok")
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

type web struct {
	srv  *http.Server
	done chan struct{}
}

func (s *Server) startHTTP() (*web, error) {
	w := &web{done: make(chan struct{})}
	if s.cfg.HTTP == "" {
		close(w.done)
		return w, nil
	}
	l, err := net.Listen("tcp", s.cfg.HTTP)
	if err != nil {
		return nil, fmt.Errorf("health and metrics: %w", err)
	}
	s.mu.Lock()
	s.httpAddr = l.Addr().String()
	s.mu.Unlock()
	w.srv = &http.Server{Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	go func() {
		defer close(w.done)
		if err := w.srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.log.Error("health and metrics ended", "err", err)
		}
	}()
	return w, nil
}

func (w *web) stop() {
	if w.srv != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if w.srv.Shutdown(ctx) != nil {
			_ = w.srv.Close() // whoever still reads has had his second
		}
	}
	<-w.done
}
