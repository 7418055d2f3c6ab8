package distributed_test

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// exitingAt is a hook that ends its goroutine once, where it is told to, for the key "k-1" or
// for a command.
type exitingAt struct {
	where string
	once  *atomic.Bool
}

func (h exitingAt) at(where, key string) {
	if where == h.where && (key == "" || key == "k-1") && !h.once.Swap(true) {
		runtime.Goexit()
	}
}

func (h exitingAt) Flight(ctx context.Context, start distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	h.at("flight", start.Key)
	return ctx, "", func(distributed.Flight) { h.at("landed", start.Key) }
}

func (h exitingAt) Command(c distributed.Command) { h.at(c.Step, "") }

func (h exitingAt) Lease(l distributed.Lease) {
	if l.State == distributed.LeaseTaken {
		h.at("taken", l.Key)
	}
}

// TestAHookThatEndsItsGoroutineForAKeyOfABatchHurtsNoOther has the caller's own goroutine
// exit where the flight begins, and one of the batch's elsewhere.
func TestAHookThatEndsItsGoroutineForAKeyOfABatchHurtsNoOther(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"flight", "join", "taken", "landed", "finish"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			f := newFleet[string](t, 1, distributed.WithHooks(exitingAt{where, new(atomic.Bool)}))
			g, keys := f.groups[0], []string{"k-0", "k-1", "k-2", "k-3"}
			done := make(chan map[string]coalesce.Result[string], 1)
			go func() {
				defer close(done)
				results, _ := g.DoMany(context.Background(), keys, atOnce)
				done <- results
			}()
			results := <-done
			if where == "flight" != (results == nil) {
				t.Errorf("results %v", results)
			}
			lost := 0
			for key, r := range results {
				switch {
				case r.Err == coalesce.ErrGoexit:
					lost++
				case r.Val != "of "+key || r.Err != nil:
					t.Errorf("%s: %+v", key, r)
				}
			}
			if want := map[string]int{"join": 1, "taken": 1, "landed": 1}[where]; lost != want {
				t.Errorf("%d keys were lost, not %d", lost, want)
			}
			eventually(t, "all flights have ended", func() bool {
				st := g.Stats()
				return st.Distributed.ActiveFlights == 0 && st.Local.ActiveFlights == 0 && st.Local.Waiting == 0
			})
			if err := g.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAFlightWhoseHookEndsItsGoroutineIsReleased has it exit when it is told of the end.
func TestAFlightWhoseHookEndsItsGoroutineIsReleased(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithHooks(exitingAt{"landed", new(atomic.Bool)}))
	g := f.groups[0]
	leave, cancel := context.WithCancel(context.Background()) // the function gets a goroutine of its own
	defer cancel()
	if _, _, err := g.Do(leave, "k-1", value); err != coalesce.ErrGoexit {
		t.Errorf("its caller has %v", err)
	}
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := f.client().Exists(context.Background(), "fleetcall:test:{k-1}:lease").Val(); n != 0 {
		t.Error("its lease is left")
	}
}

// TestABatchGoesOnWithoutAKeptOutcomeThatIsGarbage has one key whose first join is of no use.
func TestABatchGoesOnWithoutAKeptOutcomeThatIsGarbage(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithMaxAge(time.Hour))
	kept := f.client().HSet(context.Background(), "fleetcall:test:{b}:latest", "finished", time.Now().Add(-time.Minute).UnixMicro(), "outcome", "garbage", "trace", "")
	if err := kept.Err(); err != nil {
		t.Fatal(err)
	}
	keys := []string{"a", "b", "c"}
	(<-doMany(context.Background(), f.groups[0], keys, atOnce)).wantRoles(t, keys, coalesce.Leader)
}

// heldCodec holds one value up until it is told to take it.
type heldCodec struct {
	coalesce.Codec[string]
	release chan struct{}
}

func (c heldCodec) Marshal(v string) ([]byte, error) {
	if v == "held" {
		<-c.release
	}
	return c.Codec.Marshal(v)
}

// TestAKeyThatFallsBackWaitsForNoFinish has a batch that awaits the finish of its own replica's
// last flight of one key, which a codec holds up, while another key falls back.
func TestAKeyThatFallsBackWaitsForNoFinish(t *testing.T) {
	t.Parallel()
	codec := heldCodec{coalesce.JSON[string](), make(chan struct{})}
	f := newFleet[string](t, 2, distributed.WithCodec[string](codec), distributed.WithPayloadLimit(1000), distributed.WithInlineLimit(500),
		distributed.WithLeaseTTL(10*time.Minute), distributed.WithFlightTimeout(time.Hour))
	here, there := f.groups[0], f.groups[1]
	if _, _, err := here.Do(context.Background(), "own", func(context.Context) (string, error) { return "held", nil }); err != nil {
		t.Fatal(err)
	}
	theirs := newBatchFn()
	large := doMany(context.Background(), there, []string{"large"}, func(ctx context.Context, keys []string) (map[string]string, error) {
		_, _ = theirs.run(ctx, keys)
		return map[string]string{"large": strings.Repeat("x", 2000)}, nil
	})
	<-theirs.began
	fn := newBatchFn()
	close(fn.release)
	batch := doMany(context.Background(), here, []string{"own", "large", "led"}, fn.run)
	if got := <-fn.began; !slices.Equal(got, []string{"led"}) {
		t.Errorf("the function was called for %q first", got)
	}
	f.waitSubscribers("large", 1)
	close(theirs.release)
	select {
	case got := <-fn.began:
		if !slices.Equal(got, []string{"large"}) {
			t.Errorf("the function was called for %q then", got)
		}
	case <-time.After(calm):
		t.Error("a key that falls back waits for the finish of another one")
	}
	close(codec.release)
	<-large
	if got := <-batch; got.err != nil || got.results["large"].Role != coalesce.Fallback || got.results["own"].Role != coalesce.Leader {
		t.Errorf("%+v", got)
	}
}
