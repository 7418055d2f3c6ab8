package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// fallbackPause is the time without fallbacks of a cause after which the next one is
// logged again.
const fallbackPause = 10 * time.Second

var redisFailures = distributed.FailureKinds()

// fallbackLog logs the first of many functions that run without the lease, once for each
// cause: a line about results that are too large must not hide that Redis is gone.
type fallbackLog struct {
	log  *slog.Logger
	runs string // what the functions do: "queries run"

	mu   sync.Mutex
	last map[string]time.Time // when a function ran without the lease, by cause; guarded by mu
}

// Run makes fallbackLog a distributed.RunHook.
func (f *fallbackLog) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	if run.Role == coalesce.Fallback {
		f.note(ctx, run, time.Now())
	}
	return ctx, func(error) {}
}

func (f *fallbackLog) note(ctx context.Context, run distributed.Run, now time.Time) {
	if f.news(run.Cause, now) {
		f.log.WarnContext(ctx, f.runs+" without the lease, once on each replica", "cause", run.Cause, "key", shortened(run.Key), "flight", run.Flight)
	}
}

// news says whether there was no fallback of this cause for a while.
func (f *fallbackLog) news(cause string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.last == nil {
		f.last = map[string]time.Time{}
	}
	goesOn := func(cause string) bool { return now.Sub(f.last[cause]) < fallbackPause }
	news := !goesOn(cause)
	if cause == "down" && slices.ContainsFunc(redisFailures, goesOn) {
		news = false // that failure took the server down, and has its line
	}
	f.last[cause] = now
	return news
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
