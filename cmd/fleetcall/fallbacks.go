package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"fleetcall/coalesce"
	"fleetcall/coalesce/distributed"
)

// fallbackPause is how long no query must have run without the lease before
// one that does is news again.
const fallbackPause = 10 * time.Second

// fallbackLog logs one line for each stretch of queries that run without the
// lease, with the first of them.
type fallbackLog struct {
	distributed.NoObserver
	log *slog.Logger

	mu   sync.Mutex
	last time.Time // when a query ran without the lease; guarded by mu
}

// Run makes fallbackLog a distributed.Observer.
func (f *fallbackLog) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	if run.Role == coalesce.Fallback {
		f.note(ctx, run, time.Now())
	}
	return ctx, func(error) {}
}

func (f *fallbackLog) note(ctx context.Context, run distributed.Run, now time.Time) {
	f.mu.Lock()
	news := now.Sub(f.last) >= fallbackPause
	f.last = now
	f.mu.Unlock()
	if news {
		f.log.WarnContext(ctx, "queries run without the lease, once on each replica", "cause", run.Cause, "key", shortened(run.Key), "flight", run.Flight)
	}
}

// shortened returns a key as the distributed tier logs it: quoted, so that it
// cannot forge a line, and cut.
func shortened(key string) string {
	const shown = 64
	if len(key) > shown {
		key = key[:shown] + "…"
	}
	return fmt.Sprintf("%q", key)
}
