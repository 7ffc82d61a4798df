package world_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fnwire/fnwire/experiments/lab"
	"github.com/fnwire/fnwire/experiments/worker"
	"github.com/fnwire/fnwire/experiments/workload"
	"github.com/fnwire/fnwire/experiments/world"
)

// handOver sends a state from one host to another by the direct path alone.
func handOver(t *testing.T, w *world.World, from, to string, within time.Duration) (worker.Sent, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, b, err := w.Pair(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Stop(); err != nil {
			t.Error(err)
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	}()
	src, err := workload.Real(ctx, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	nameA, nameB := w.FreshName("a"), w.FreshName("b")
	var joins errgroup.Group
	joins.Go(func() error { _, err := a.Join(ctx, w.JoinArgs(nameA)); return err })
	joins.Go(func() error { _, err := b.Join(ctx, w.JoinArgs(nameB)); return err })
	if err := joins.Wait(); err != nil {
		t.Fatal(err)
	}
	rctx, stop := context.WithCancel(ctx)
	var receiver errgroup.Group
	receiver.Go(func() error { _, err := b.Receive(rctx); return err })
	sent, err := a.Send(ctx, worker.SendArgs{To: nameB, Key: "k", Path: "direct", Source: src, Within: within})
	if err != nil {
		stop()
	}
	if rerr := receiver.Wait(); err == nil && rerr != nil {
		t.Error(rerr)
	}
	stop()
	return sent, err
}

// TestHardNATs: functions behind symmetric NATs meet where that is possible, and are told at once where it is not.
func TestHardNATs(t *testing.T) {
	w := raise(t, lab.Host{Name: "random", NAT: lab.Symmetric}, lab.Host{Name: "random-2", NAT: lab.Symmetric},
		lab.Host{Name: "order", NAT: lab.Sequential}, lab.Host{Name: "order-2", NAT: lab.Sequential},
		lab.Host{Name: "easy", NAT: lab.PortRestricted})
	for _, pair := range [][2]string{{"random", "easy"}, {"easy", "random"}, {"order", "easy"}, {"order", "order-2"}} {
		sent, err := handOver(t, w, pair[0], pair[1], 50*time.Second)
		if err != nil || sent.Receipt.Path != "direct" {
			t.Errorf("%v: %+v, %v", pair, sent.Receipt, err)
		}
	}
	for pair, want := range map[[2]string]string{
		{"random", "random-2"}: "both NATs are symmetric with random ports",
		{"random-2", "order"}:  "symmetric with random ports",
	} {
		_, err := handOver(t, w, pair[0], pair[1], 20*time.Second) // three attempts would take 30 s
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "allow a relay") {
			t.Errorf("%v: %v", pair, err)
		}
	}
}
