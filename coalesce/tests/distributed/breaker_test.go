package distributed_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestABreakerClosesThoughNobodyCalls: an idle replica's must not stay what the
// last caller left.
func TestABreakerClosesThoughNobodyCalls(t *testing.T) {
	var told toldLog
	var log logged
	f := newFleet[string](t, 1, distributed.WithHooks(breakers{log: &told}), distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	f.scriptsLoaded()
	f.memory("1")
	if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Fallback || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if s := f.groups[0].Stats().Distributed; s.Breaker != "open" || s.RedisErrorsBy["oom"] != 1 {
		t.Errorf("the breaker is %s after %v", s.Breaker, s.RedisErrorsBy)
	}
	eventually(t, "Redis is tried, with nobody calling", func() bool { return f.groups[0].Stats().Distributed.RedisErrorsBy["oom"] > 2 })
	f.memory("0")
	eventually(t, "the breaker has closed", func() bool { return f.groups[0].Stats().Distributed.Breaker == "closed" })
	eventually(t, "the observer is told", func() bool {
		told.mu.Lock()
		defer told.mu.Unlock()
		return slices.Contains(told.lines, "closed to open") && slices.Contains(told.lines, "half-open to closed")
	})
	// The probes between do not show: an outage is two lines.
	for _, want := range []string{
		`level=WARN msg="fleetcall: Redis breaker changed" replica=replica-0 from=closed to=open`,
		`level=INFO msg="fleetcall: Redis breaker changed" replica=replica-0 from=half-open to=closed`,
	} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%d times in the log: %s\n%s", n, want, log.String())
		}
	}
	if n := strings.Count(log.String(), "breaker changed"); n != 2 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// memory sets how much Redis may use; "0" is no limit, and "1" too little.
func (f *fleet[V]) memory(limit string) {
	f.t.Helper()
	if err := f.client().ConfigSet(context.Background(), "maxmemory", limit).Err(); err != nil {
		f.t.Fatal(err)
	}
}

func TestNothingIsSentAfterClose(t *testing.T) {
	f := newFleet[string](t, 1)
	f.scriptsLoaded()
	f.memory("1")
	if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Fallback || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if err := f.groups[0].Close(context.Background()); err != nil {
		t.Error(err)
	}
	f.resetCommands()
	time.Sleep(2500 * time.Millisecond) // the probe would have come
	if n := f.commands(); n["evalsha"]+n["eval"] != 0 {
		t.Errorf("%v", n)
	}
}

type breakers struct {
	log *toldLog
}

func (o breakers) Breaker(from, to string) { o.log.add(from + " to " + to) }
