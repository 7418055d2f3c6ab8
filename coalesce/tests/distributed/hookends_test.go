package distributed_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// counting is a hook that counts what has begun, and what of it has ended.
type counting struct{ flights, ended, runs, ran atomic.Int64 }

func (h *counting) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	h.flights.Add(1)
	return ctx, "", func(distributed.Flight) { h.ended.Add(1) }
}

func (h *counting) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	h.runs.Add(1)
	return ctx, func(error) { h.ran.Add(1) }
}

// TestAHookIsToldOfEachEndThoughAnotherOnePanics has a hook that panics before or after
// its turn.
func TestAHookIsToldOfEachEndThoughAnotherOnePanics(t *testing.T) {
	server := redisrig.Start(t)
	for _, where := range []string{"flight", "run", "landed", "ran"} {
		t.Run(where, func(t *testing.T) {
			h := &counting{}
			g := newGroup[string](t, openFleet(t, server, distributed.WithHooks(h, panicking{where})), "g")
			if got := comesBack(t, "the caller", calling(context.Background(), g, where, value)); got.err == nil {
				t.Errorf("no panic: %+v", got)
			}
			runs := int64(1)
			if where == "flight" {
				runs = 0
			}
			eventually(t, "it is told of the ends", func() bool { return h.ended.Load() == 1 && h.ran.Load() == runs })
			if n, m := h.flights.Load(), h.runs.Load(); n != 1 || m != runs {
				t.Errorf("%d flights and %d executions have begun", n, m)
			}
		})
	}
}

// exiting is a hook that ends the goroutine of the first flight, when it may.
type exiting struct {
	once atomic.Bool
	may  chan struct{}
}

func (h *exiting) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	if !h.once.Swap(true) {
		<-h.may
		runtime.Goexit()
	}
	return ctx, "", func(distributed.Flight) {}
}

// TestAHookThatEndsItsGoroutineEndsTheCallsOfTheOthers has it run on the first caller's
// own goroutine, which is gone then. The key can be used again.
func TestAHookThatEndsItsGoroutineEndsTheCallsOfTheOthers(t *testing.T) {
	h := &exiting{may: make(chan struct{})}
	g := newGroup[string](t, openFleet(t, redisrig.Start(t), distributed.WithHooks(h)), "g")
	first := calling(context.Background(), g, "k", value)
	eventually(t, "the hook is told", h.once.Load)
	others := []<-chan answer[string]{calling(context.Background(), g, "k", value), calling(context.Background(), g, "k", value)}
	eventually(t, "the others wait", func() bool { return g.Stats().Local.Waiting >= 2 && g.Stats().Local.Requests == 3 })
	close(h.may)
	if got := comesBack(t, "the first", first); got.err != errNoReturn {
		t.Errorf("the first has %+v", got)
	}
	for _, other := range others {
		if got := comesBack(t, "another one", other); !errors.Is(got.err, coalesce.ErrGoexit) {
			t.Errorf("another one has %+v", got)
		}
	}
	if v, _, err := g.Do(context.Background(), "k", value); v != "v" || err != nil {
		t.Errorf("after it: %q, %v", v, err)
	}
}
