package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/product"
)

const (
	checkTimeout = 2 * time.Second // of one check
	// minCheckPause and maxCheckPause are the pauses between two checks. They double.
	minCheckPause, maxCheckPause = 250 * time.Millisecond, 4 * time.Second
)

// readiness knows whether the database takes this replica's queries, or the upstream its
// connections. Once it has taken them, the replica stays ready: what happens to the database
// then happens to all replicas, and an upstream that is gone is no reason to lose the
// answers of the others' as well.
type readiness struct {
	of      string                      // database or upstream
	own     bool                        // it may be down for this replica alone
	check   func(context.Context) error // asks it
	log     *slog.Logger
	checked chan struct{} // closed after the first check

	mu     sync.Mutex
	status api.Readiness
	late   bool   // the replica listens, and has yet to say that it is ready
	said   string // why it was not ready the last time that the log was told
}

func newReadiness(check func(context.Context) error, log *slog.Logger) *readiness {
	return &readiness{of: "database", check: check, log: log, checked: make(chan struct{}), status: api.Starting}
}

// newUpstreamReadiness is newReadiness for a proxy. Its upstream is often its own, as that
// of a sidecar is: until it has taken a connection, other replicas are the better choice.
func newUpstreamReadiness(ping func(context.Context) error, log *slog.Logger) *readiness {
	return &readiness{of: "upstream", own: true, check: ping, log: log, checked: make(chan struct{}), status: api.Starting}
}

func (r *readiness) load() api.Readiness {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// announce returns what the log says when the replica begins to listen.
func (r *readiness) announce() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.late = r.status != api.Ready
	switch r.status {
	case api.Ready:
		return "ready"
	case api.Refused:
		return "listening, but not ready: the database refuses this replica"
	}
	return "listening, but not ready: the " + r.of + " has not answered yet"
}

// run asks until the answer is yes or ctx ends.
func (r *readiness) run(ctx context.Context) {
	first := true
	for pause := minCheckPause; ; pause = min(2*pause, maxCheckPause) {
		err := r.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		r.note(err)
		if first {
			first = false
			close(r.checked)
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (r *readiness) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return r.check(ctx)
}

// note draws the conclusion from a check, and logs what is new.
func (r *readiness) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.status = api.Ready
	case errors.Is(err, product.ErrRefused):
		r.status, r.late = api.Refused, true
		if err.Error() != r.said {
			r.said = err.Error()
			r.log.Error("not ready: the database refuses this replica", "error", err)
		}
	case r.own:
		if err.Error() != r.said {
			r.said = err.Error()
			r.log.Warn("the "+r.of+" cannot be reached", "error", err)
		}
	case r.status == api.Starting:
		// It is down for all replicas: this one is as good as any other.
		r.status = api.Ready
		r.log.Warn("the database cannot be reached", "error", err)
	}
	if r.late && r.status == api.Ready {
		r.late = false
		r.log.Info("ready")
	}
}
