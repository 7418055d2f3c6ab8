package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// told notes what an observer is told, under its name.
type told struct {
	name string
	log  *toldLog
}

type toldLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *toldLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

func (l *toldLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

type toldKey struct{}

func (o told) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	o.log.add(o.name + " flight")
	before, _ := ctx.Value(toldKey{}).(string)
	return context.WithValue(ctx, toldKey{}, before+o.name), "", func(f distributed.Flight) {
		o.log.add(o.name + " landed " + f.Role.String())
	}
}
func (o told) Followed(_ context.Context, f distributed.Followed) {
	o.log.add(o.name + " followed " + f.Flight)
}
func (o told) Called(_ context.Context, c distributed.Call) {
	o.log.add(o.name + " called " + c.Role.String())
}
func (o told) Command(c distributed.Command)   { o.log.add(o.name + " " + c.Step) }
func (o told) Server(distributed.ServerChange) {}
func (o told) Lease(l distributed.Lease) {
	if l.State == distributed.LeaseTaken {
		o.log.add(o.name + " lease taken")
	}
}

func (o told) Run(ctx context.Context, _ distributed.Run) (context.Context, func(error)) {
	o.log.add(o.name + " run")
	before, _ := ctx.Value(toldKey{}).(string)
	return context.WithValue(ctx, toldKey{}, before+o.name), func(error) { o.log.add(o.name + " ran") }
}

func TestEveryObserverIsToldInTheOrderTheyWereAdded(t *testing.T) {
	var log toldLog
	f := newFleet[string](t, 1, distributed.WithHooks(told{"a", &log}),
		distributed.WithHooks(told{"b", &log}), distributed.WithHooks(told{"c", &log}))
	value, role, err := f.groups[0].Do(t.Context(), "key", func(ctx context.Context) (string, error) {
		seen, _ := ctx.Value(toldKey{}).(string)
		return seen, nil
	})
	if value != "abcabc" || role != coalesce.Leader || err != nil {
		t.Errorf("Do returned %q, %v, %v: the function wants the contexts of a, b and c, of the flight and of the run", value, role, err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	// This comes when it comes, after the call.
	lines := slices.DeleteFunc(log.lines, func(line string) bool { return line[2:] == "finish" })
	want := []string{
		"a flight", "b flight", "c flight",
		"a join", "b join", "c join",
		"a lease taken", "b lease taken", "c lease taken",
		"a run", "b run", "c run",
		"c ran", "b ran", "a ran",
		"c landed leader", "b landed leader", "a landed leader",
		"a called leader", "b called leader", "c called leader",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("they were told %q\nwant %q", lines, want)
	}
}

// callOnly is a hook of one method.
type callOnly struct{}

func (callOnly) Called(context.Context, distributed.Call) {}

// watcher notes flights and whom they followed.
type watcher struct {
	trace string

	mu       sync.Mutex
	landed   []distributed.Flight
	followed []distributed.Followed
}

func (w *watcher) Flight(ctx context.Context, _ distributed.FlightStart) (context.Context, string, func(distributed.Flight)) {
	return ctx, w.trace, func(f distributed.Flight) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.landed = append(w.landed, f)
	}
}

func (w *watcher) Followed(_ context.Context, f distributed.Followed) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.followed = append(w.followed, f)
}

// seen waits for n flights and returns what became of them and whom they
// followed.
func (w *watcher) seen(t *testing.T, n int) (landed []distributed.Flight, followed []distributed.Followed) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " flights"), func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		landed, followed = slices.Clone(w.landed), slices.Clone(w.followed)
		return len(landed) == n
	})
	return landed, followed
}

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestAFollowersObserverIsToldTheLeadersTraceAndTheLag(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ trace, replica, want string }{
		"traceparent":                     {traceparent, "leader", traceparent},
		"none":                            {"", "leader", ""},
		"the longest":                     {strings.Repeat("~", 128), "leader", strings.Repeat("~", 128)},
		"too long":                        {strings.Repeat("~", 129), "leader", ""},
		"not printable":                   {"00\x00", "leader", ""},
		"of two lines":                    {"00\n01", "leader", ""},
		"none, the replica has two lines": {"", "leader\n00-not-a-trace", ""},
		"one, the replica has two lines":  {traceparent, "leader\n00-not-a-trace", traceparent},
	} {
		t.Run(name, func(t *testing.T) {
			leads, follows := &watcher{trace: tt.trace}, &watcher{trace: "not the leader's"}
			f := newFleet[string](t, 0)
			leader := f.join(distributed.WithHooks(leads), distributed.WithReplicaID(tt.replica))
			follower := f.join(distributed.WithHooks(callOnly{}), distributed.WithHooks(follows))
			const after = 30 * time.Millisecond
			joined := make(chan struct{})
			done := make(chan error, 2)
			go func() {
				_, _, err := leader.Do(context.Background(), "k", func(context.Context) (string, error) {
					<-joined
					time.Sleep(after) // what the lag must tell
					return "value", nil
				})
				done <- err
			}()
			eventually(t, "led", func() bool { return f.joins.Load() == 1 })
			go func() {
				_, _, err := follower.Do(context.Background(), "k", func(context.Context) (string, error) {
					return "", errors.New("the follower's function ran")
				})
				done <- err
			}()
			f.waitFollowers("k", 1)
			close(joined)
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			led, nobody := leads.seen(t, 1)
			landed, followed := follows.seen(t, 1)
			if len(nobody) != 0 || led[0].Role != coalesce.Leader || led[0].Err != nil || led[0].Lag >= 0 || led[0].Wait < after {
				t.Errorf("the leader's observer was told %+v, followed %+v", led, nobody)
			}
			got := landed[0]
			if got.Role != coalesce.RemoteFollower || got.Flight != led[0].Flight || got.Err != nil || got.Wait < after ||
				got.Lag < 0 || got.Lag > got.Wait {
				t.Errorf("the follower's observer was told %+v", got)
			}
			if len(followed) != 1 || followed[0] != (distributed.Followed{Group: "test", Key: "k", Flight: led[0].Flight, Trace: tt.want}) {
				t.Errorf("it followed %q, want the trace %q of %q", followed, tt.want, led[0].Flight)
			}
		})
	}
}

func TestLagIsMeasuredByRedisClock(t *testing.T) {
	const late = 300 * time.Millisecond
	for name, tt := range map[string]struct {
		finished func(now time.Time) uint64
		least    time.Duration
	}{
		"a while ago":         {func(now time.Time) uint64 { return uint64(now.UnixMicro()) }, late},
		"yet to come":         {func(now time.Time) uint64 { return uint64(now.Add(time.Hour).UnixMicro()) }, 0},
		"at the end of times": {func(time.Time) uint64 { return 1<<64 - 1 }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			w := &watcher{}
			f := newFleet[string](t, 1, distributed.WithHooks(w))
			f.foreignLease("k", 10*time.Second)
			done := make(chan error, 1)
			go func() {
				v, role, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "own", nil })
				if v != "theirs" || role != coalesce.RemoteFollower {
					err = errors.Join(err, fmt.Errorf("%q as %v", v, role))
				}
				done <- err
			}()
			f.waitFollowers("k", 1)
			now, err := f.client().Time(context.Background()).Result()
			if err != nil {
				t.Fatal(err)
			}
			before := time.Now()
			time.Sleep(tt.least) // the least that may be told
			f.client().Publish(context.Background(), "fleetcall:test:{k}@0", foreignOutcomeAt(tt.finished(now), "json", `"theirs"`))
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			landed, followed := w.seen(t, 1)
			most := tt.least + time.Since(before) + time.Second // what the round trips may have taken
			if lag := landed[0].Lag; lag < tt.least || lag > most {
				t.Errorf("a lag of %v, want about %v", lag, tt.least)
			}
			// The lease is one from before leases had a trace.
			if len(followed) != 1 || followed[0].Trace != "" {
				t.Errorf("it followed %+v", followed)
			}
		})
	}
}

func TestAForeignTraceIsNone(t *testing.T) {
	t.Parallel()
	for _, trace := range []string{"\n" + strings.Repeat("x", 129), "\nwith space", "\n\xff", "\n\n", "\n" + traceparent + "\n"} {
		w := &watcher{}
		f := newFleet[string](t, 1, distributed.WithHooks(w))
		f.set("fleetcall:test:{k}:lease", foreignHeld(100*time.Millisecond)+trace, 100*time.Millisecond)
		v, _, err := f.groups[0].Do(t.Context(), "k", func(context.Context) (string, error) { return "own", nil })
		if v != "own" || err != nil {
			t.Errorf("%q: %q, %v", trace, v, err)
		}
		landed, followed := w.seen(t, 1)
		if len(followed) != 1 || followed[0].Trace != "" || !landed[0].Takeover || landed[0].Role != coalesce.Leader {
			t.Errorf("%q: it followed %+v and landed as %+v", trace, followed, landed)
		}
	}
}

func TestAFlightsObserverIsToldHowItEnded(t *testing.T) {
	t.Parallel()
	w := &watcher{}
	f := newFleet[string](t, 1, distributed.WithHooks(w), distributed.WithRedisTimeout(2*time.Second))
	g := f.groups[0]
	failed := errors.New("failed")
	for _, fn := range []func(context.Context) (string, error){
		func(context.Context) (string, error) { return "", nil },
		func(context.Context) (string, error) { return "", failed },
		func(context.Context) (string, error) { panic("boom") },
	} {
		func() {
			defer func() { _ = recover() }()
			_, _, _ = g.Do(t.Context(), "k", fn)
		}()
	}
	f.server.Kill()
	_, role, err := g.Do(t.Context(), "k", func(context.Context) (string, error) { return "", nil })
	if role != coalesce.Fallback || err != nil {
		t.Errorf("without Redis: %v, %v", role, err)
	}
	landed, _ := w.seen(t, 4)
	var panicked *coalesce.PanicError
	if landed[0].Err != nil || landed[1].Err != failed || !errors.As(landed[2].Err, &panicked) || landed[3].Err != nil {
		t.Errorf("errors: %+v", landed)
	}
	for i, want := range []coalesce.Role{coalesce.Leader, coalesce.Leader, coalesce.Leader, coalesce.Fallback} {
		if landed[i].Role != want || (landed[i].Cause != "") != (want == coalesce.Fallback) || landed[i].Takeover {
			t.Errorf("%d: %+v", i, landed[i])
		}
	}
	st := g.Stats().Distributed
	if st.Requests != 4 || st.Leaders != 3 || st.Fallbacks != 1 || st.Errors != 2 {
		t.Errorf("%+v", st)
	}
}

func TestTotalsOutliveAReset(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1, distributed.WithRedisTimeout(2*time.Second))
	g := f.groups[0]
	do := func() {
		t.Helper()
		if _, _, err := g.Do(t.Context(), "k", func(context.Context) (string, error) { return "", errors.New("no") }); err == nil {
			t.Error("no error")
		}
	}
	do()
	before := g.Totals()
	g.ResetStats()
	if st := g.Stats(); st.Local.Requests != 0 || st.Local.Errors != 0 || st.Distributed.Requests != 0 || st.Distributed.Errors != 0 {
		t.Errorf("after a reset: %+v", st)
	}
	if after := g.Totals(); after.Local != before.Local || after.Distributed.Requests != 1 || after.Distributed.Errors != 1 {
		t.Errorf("totals were %+v, are %+v", before, after)
	}
	f.server.Kill()
	do()
	g.ResetStats()
	failures, redis := g.Totals().Distributed, g.fleet.Totals().Redis
	if redis.Errors == 0 || len(redis.ErrorsBy) == 0 || failures.Requests != 2 || failures.Fallbacks != 1 {
		t.Errorf("totals are %+v", failures)
	}
	for kind, n := range g.Stats().Distributed.RedisErrorsBy {
		if n == 0 {
			t.Errorf("%s is said to have failed 0 times", kind)
		}
	}
}

// leaseOnly is a hook that has nothing to tell of a local tier.
type leaseOnly struct{}

func (leaseOnly) Lease(distributed.Lease) {}

func TestObservedRefusesHooksThatWouldNeverBeTold(t *testing.T) {
	for want, hook := range map[string]distributed.Hook{"is nil": nil, "neither a CallHook nor a RunHook": leaseOnly{}} {
		if _, err := distributed.Observed(coalesce.Off[int]{}, "off", hook); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", hook, err)
		}
	}
	if _, err := distributed.Observed(coalesce.Off[int]{}, "off", callOnly{}); err != nil {
		t.Error(err)
	}
}
