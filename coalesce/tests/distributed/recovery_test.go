package distributed_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAnOutcomeFromBeforeAHangOfRedisGoesToNobodyAfterIt ends flights while
// Redis hangs. Redis takes up what it was sent when it goes on, in whatever
// order: a join that had timed out leads a flight that is over.
func TestAnOutcomeFromBeforeAHangOfRedisGoesToNobodyAfterIt(t *testing.T) {
	for _, test := range []struct {
		name  string
		hangs func(f *fleet[string], fly func(hang func()))
		role  coalesce.Role
	}{
		{"before the join", func(f *fleet[string], fly func(func())) {
			f.server.Freeze()
			fly(func() {})
		}, coalesce.Fallback},
		{"while the function runs", func(f *fleet[string], fly func(func())) {
			fly(f.server.Freeze)
		}, coalesce.Leader},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet[string](t, 2, distributed.WithRedisTimeout(200*time.Millisecond),
				distributed.WithLeaseTTL(time.Minute), // nothing may be left to it
				distributed.WithMaxTakeovers(0))       // one attempt that stays would poison the key
			f.settled()
			ctx := context.Background()
			timeouts := func() uint64 { return f.groups[0].Stats().Distributed.RedisErrorsBy["timeout"] }
			var before uint64
			test.hangs(f, func(hang func()) {
				v, role, err := f.groups[0].Do(ctx, "k", func(context.Context) (string, error) {
					hang()
					return "old", nil
				})
				before = timeouts()
				if v != "old" || role != test.role || err != nil {
					t.Errorf("%q, %v, %v", v, role, err)
				}
			})
			eventually(t, "Redis could not be told of the end", func() bool { return timeouts() > before })

			f.server.Thaw()
			for i := range 20 {
				// At first, the server may be down for the replica.
				v, _, err := f.groups[1].Do(ctx, "k", func(context.Context) (string, error) { return "new", nil })
				if v != "new" || err != nil {
					t.Errorf("call %d after the hang: %q, %v", i, v, err)
				}
			}
			f.quiet()
			eventually(t, "the server is up, and each replica leads", func() bool { return everyReplicaLeads(f) })
			if n := f.client().Exists(ctx, "fleetcall:test:{k}:attempts").Val(); n != 0 {
				t.Error("an attempt is left: the key is on its way to be poisoned")
			}
		})
	}
}

// everyReplicaLeads calls on one replica after the other, and reports whether all
// of them led.
func everyReplicaLeads(f *fleet[string]) bool {
	f.t.Helper()
	for _, g := range f.groups {
		v, role, err := g.Do(context.Background(), "k", value)
		if v != "v" || err != nil {
			f.t.Errorf("%q, %v", v, err)
		}
		if role != coalesce.Leader {
			return false
		}
		f.quiet()
	}
	return true
}

func TestThoseWhoJoinALateTakeoverGetALeaderNotItsTimeout(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2, distributed.WithFlightTimeout(2*time.Second))
	f.foreignLease("k", time.Second) // its leader is dead: half of the flight timeout is lost with it
	ctx := context.Background()
	started, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	taker := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(ctx, "k", func(context.Context) (string, error) {
			close(started)
			<-release
			return "", nil
		})
		taker <- a
	}()
	<-started
	v, role, err := f.groups[1].Do(ctx, "k", value)
	if v != "v" || role != coalesce.Leader || err != nil {
		t.Errorf("who joined the takeover: %q, %v, %v", v, role, err)
	}
	if a := <-taker; !errors.Is(a.err, coalesce.ErrFlightTimeout) {
		t.Errorf("who took over: %+v", a)
	}
	if s := f.groups[1].Stats().Distributed; s.Takeovers != 1 {
		t.Errorf("the second replica did not wait for the first: %+v", s)
	}
}

// TestACallerWaitsForTheEndOfItsReplicasFlightNotForTheNextTryToTellRedis has
// tries that are a minute apart.
func TestACallerWaitsForTheEndOfItsReplicasFlightNotForTheNextTryToTellRedis(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithRedisTimeout(4*time.Minute), distributed.WithLeaseTTL(10*time.Minute), distributed.WithFlightTimeout(10*time.Minute))
	g := f.groups[0]
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	f.failFinishes.Store(1)
	if v, role, err := g.Do(ctx, "k", value); v != "v" || role != coalesce.Leader || err != nil {
		t.Fatal(v, role, err)
	}
	eventually(t, "Redis could not be told of the end", func() bool { return g.Stats().Distributed.RedisErrors == 1 })
	eventually(t, "a caller leads", func() bool {
		v, role, err := g.Do(ctx, "k", func(context.Context) (string, error) { return "new", nil })
		if v != "new" || err != nil {
			t.Errorf("%q, %v, %v", v, role, err)
		}
		return role == coalesce.Leader || err != nil
	})
	f.quiet()
}

func TestAnAbandonThatRedisDidNotTakeIsRepeated(t *testing.T) {
	server := redisrig.Start(t)
	var failures atomic.Int32
	w := &tap{t: t, server: server, before: func(script string, _ []any) error {
		if script == "abandon" && failures.Add(1) <= 2 {
			return errors.New("broken pipe")
		}
		return nil
	}}
	g := wiredGroup[string](w, distributed.WithRedisTimeout(time.Second), distributed.WithLeaseTTL(time.Minute))
	ctx, cancel := context.WithCancel(context.Background())
	_, _, err := g.Do(ctx, "k", func(ctx context.Context) (string, error) {
		cancel()
		<-ctx.Done()
		return "", ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	client := server.Client()
	eventually(t, "the lease and the attempt are gone", func() bool {
		return failures.Load() > 2 && client.Exists(context.Background(), "fleetcall:test:{k}:lease", "fleetcall:test:{k}:attempts").Val() == 0
	})
}

// TestACallerRunsItsOwnWhenRedisHangsBeforeTheEndOfItsReplicasFlight freezes
// Redis when it has let a caller join a flight that has ended, but whose end it
// has not been told of.
func TestACallerRunsItsOwnWhenRedisHangsBeforeTheEndOfItsReplicasFlight(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	ended, joined := make(chan struct{}), make(chan struct{})
	var finishes, joins atomic.Int32
	w := &tap{
		t: t, server: server,
		before: func(script string, _ []any) error {
			if script == "finish" && finishes.Add(1) == 1 {
				close(ended)
				<-joined
			}
			return nil
		},
		after: func(script string, _ []any, _ any, _ time.Duration) {
			if script == "join" && joins.Add(1) == 2 {
				server.Freeze()
				close(joined)
			}
		},
	}
	g := wiredGroup[string](w, distributed.WithRedisTimeout(2*time.Second), distributed.WithLeaseTTL(time.Minute), distributed.WithFlightTimeout(20*time.Second))
	defer server.Thaw()
	ctx := context.Background()
	if v, role, err := g.Do(ctx, "k", value); v != "v" || role != coalesce.Leader || err != nil {
		t.Fatal(v, role, err)
	}
	<-ended
	if v, role, err := g.Do(ctx, "k", func(context.Context) (string, error) { return "own", nil }); v != "own" || role != coalesce.Fallback || err != nil {
		t.Errorf("%q, %v, %v", v, role, err)
	}
	if n := joins.Load(); n != 2 {
		t.Errorf("%d joins: the caller did not wait for the end", n)
	}
}

// callingHandler is a log handler that uses the Group whose log it handles.
type callingHandler struct {
	slog.Handler
	call func()
}

func (h callingHandler) Handle(context.Context, slog.Record) error {
	h.call()
	return nil
}

func TestALogHandlerMayUseTheGroupWhoseServerChanges(t *testing.T) {
	var group atomic.Pointer[replica[string]]
	var handled, inside atomic.Int32
	handler := callingHandler{slog.DiscardHandler, func() {
		g := group.Load()
		if g == nil || inside.Add(1) > 1 { // its own calls may change the server, too
			return
		}
		defer inside.Store(0)
		g.Stats()
		g.ResetStats()
		_ = g.Forget(context.Background(), "k") // Redis may be gone
		if v, _, err := g.Do(context.Background(), "k", value); v != "v" && !errors.Is(err, coalesce.ErrClosed) {
			t.Errorf("in the handler: %q, %v", v, err)
		}
		handled.Add(1)
	}}
	f := newFleet[string](t, 1, distributed.WithRedisTimeout(250*time.Millisecond), distributed.WithLogger(slog.New(enabled{handler})))
	group.Store(f.groups[0])
	do := func() {
		if v, _, err := f.groups[0].Do(context.Background(), "k", value); v != "v" || err != nil {
			t.Errorf("%q, %v", v, err)
		}
	}
	f.server.Kill()
	do()
	eventually(t, "the handler has handled that the server is down", func() bool { return handled.Load() >= 1 })
	f.server.Restart()
	before := handled.Load()
	eventually(t, "the handler has handled that it is up", func() bool {
		do()
		return handled.Load() > before && f.groups[0].Stats().Distributed.Server == distributed.ServerUp
	})
}

// enabled is a handler for every level.
type enabled struct{ callingHandler }

func (enabled) Enabled(context.Context, slog.Level) bool { return true }

func TestResettingTheCountsDuringAFlightLeavesThemAndTheGaugesTrue(t *testing.T) {
	f := newFleet[string](t, 2)
	const callers = 5
	all := int64(callers * len(f.groups))
	answers := f.overlapping(callers, "k", func(context.Context) (string, error) {
		f.waitFollowers("k", 1)
		for _, g := range f.groups {
			g.ResetStats()
		}
		if active, waiting := f.gauges(); active != 2 || waiting != all {
			t.Errorf("in flight: %d flights, %d waiting; want 2, %d", active, waiting, all)
		}
		return "v", nil
	})
	if n := roles(answers); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 1 {
		t.Fatalf("roles %v", n)
	}
	if active, waiting := f.gauges(); active != 0 || waiting != 0 {
		t.Errorf("afterwards: %d flights, %d waiting", active, waiting)
	}
	for i, g := range f.groups {
		s := g.Stats()
		// The local tier counts calls as they come, the distributed one as
		// they end.
		if l := s.Local; l.Requests != 0 || l.Leaders != 0 || l.Followers != 0 || l.Errors != 0 {
			t.Errorf("replica %d: %+v", i, l)
		}
		if d := s.Distributed; d.Requests != 1 || d.Leaders+d.Followers != 1 || d.Fallbacks+d.Cached+d.Errors != 0 {
			t.Errorf("replica %d: %+v", i, d)
		}
	}
}

// gauges returns the sums of the flights and of the callers that wait, or -1 while a
// flight begins or ends.
func (f *fleet[V]) gauges() (active, waiting int64) {
	for _, g := range f.groups {
		s := g.Stats()
		active += s.Distributed.ActiveFlights
		waiting += s.Local.Waiting
		if s.Local.ActiveFlights != s.Distributed.ActiveFlights {
			return -1, -1
		}
	}
	return active, waiting
}

func TestResettingTheCountsAtAnyMomentLeavesThemTrue(t *testing.T) {
	f := newFleet[string](t, 2)
	ctx := context.Background()
	var wg sync.WaitGroup
	var stop atomic.Bool
	for i := range 8 {
		wg.Go(func() {
			for !stop.Load() {
				if _, _, err := f.groups[i%2].Do(ctx, "k", value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 500 {
		for _, g := range f.groups {
			g.ResetStats()
			expectNoNegativeCount(t, g)
		}
	}
	stop.Store(true)
	wg.Wait()
	if active, waiting := f.gauges(); active != 0 || waiting != 0 {
		t.Errorf("at the end: %d flights, %d waiting", active, waiting)
	}
	for i, g := range f.groups {
		if s := g.Stats().Distributed; s.Leaders+s.Followers+s.Cached+s.Fallbacks > s.Requests {
			t.Errorf("replica %d: more roles than requests: %+v", i, s)
		}
	}
}

func expectNoNegativeCount(t *testing.T, g *replica[string]) {
	t.Helper()
	s := g.Stats()
	for name, n := range map[string]uint64{
		"leaders": s.Local.Leaders, "followers": s.Local.Followers, "requests": s.Local.Requests,
		"distributed requests": s.Distributed.Requests, "distributed leaders": s.Distributed.Leaders, "distributed followers": s.Distributed.Followers,
	} {
		if n > 1<<32 {
			t.Fatalf("%s: %d", name, n)
		}
	}
	if s.Local.Waiting < 0 || s.Local.ActiveFlights < 0 || s.Distributed.ActiveFlights < 0 {
		t.Fatalf("%+v", s)
	}
}
