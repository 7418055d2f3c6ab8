package distributed_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// panickingLog is a log handler that panics on every line.
type panickingLog struct{ slog.Handler }

func (panickingLog) Enabled(context.Context, slog.Level) bool { return true }

func (panickingLog) Handle(context.Context, slog.Record) error { panic("log") }

// TestALogThatPanicsPoisonsNoKey has each of several replicas log that a result cannot be
// encoded, which no caller hears of. The panics must not end the process, either.
func TestALogThatPanicsPoisonsNoKey(t *testing.T) {
	server := redisrig.Start(t)
	admin := server.Client()
	for range 4 { // one more than may die
		f := openFleet(t, server, distributed.WithLogger(slog.New(panickingLog{})),
			distributed.WithRedisTimeout(time.Second), distributed.WithLeaseTTL(time.Second))
		g := newGroup[string](t, f, "g", distributed.WithCodec[string](encodesNothing{}))
		if v, role, err := g.Do(context.Background(), "k", value); v != "v" || role != coalesce.Leader || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
		eventually(t, "the flight has ended, and no death is counted", func() bool {
			return admin.Exists(context.Background(), "fleetcall:g:{k}:lease", "fleetcall:g:{k}:attempts").Val() == 0
		})
	}
}
