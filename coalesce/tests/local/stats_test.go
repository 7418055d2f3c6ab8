package local_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestStatsOfAnUnusedGroupAreZero(t *testing.T) {
	var g local.Group[string, string]
	if st := g.Stats(); st != (local.Stats{}) || st.HitRate() != 0 {
		t.Errorf("%+v, hit rate %v", st, st.HitRate())
	}
}

func TestStatsFollowAFlightFromStartToEnd(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		step := func(what string, want local.Stats) {
			t.Helper()
			synctest.Wait()
			if got := g.Stats(); got != want {
				t.Fatalf("%s: %+v, want %+v", what, got, want)
			}
		}
		s := newScript()
		do(&g, ctx, "key", s.fn)
		step("led", local.Stats{Requests: 1, Leaders: 1, ActiveFlights: 1, Waiting: 1})
		do(&g, t.Context(), "key", s.fn)
		left, leave := context.WithCancel(t.Context())
		do(&g, left, "key", s.fn)
		step("joined", local.Stats{Requests: 3, Leaders: 1, Followers: 2, ActiveFlights: 1, Waiting: 3})
		leave()
		step("left", local.Stats{Requests: 3, Leaders: 1, Followers: 2, ActiveFlights: 1, Waiting: 2})
		g.Forget("key")
		step("forgotten", local.Stats{Requests: 3, Leaders: 1, Followers: 2, ActiveFlights: 1, Waiting: 2})
		s.ends("value", nil)
		step("ended", local.Stats{Requests: 3, Leaders: 1, Followers: 2})
		if rate := g.Stats().HitRate(); rate != 2.0/3 {
			t.Errorf("hit rate %v, want 2/3", rate)
		}
	})
}

func TestFunctionThatOutlivesItsCallersStaysActiveUntilItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		ctx, leave := context.WithCancel(t.Context())
		caller := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		leave()
		ended(t, caller)
		if st := g.Stats(); st != (local.Stats{Requests: 1, Leaders: 1, ActiveFlights: 1}) {
			t.Errorf("running for nobody: %+v", st)
		}
		s.ends("", nil)
		synctest.Wait()
		if st := g.Stats(); st != (local.Stats{Requests: 1, Leaders: 1}) {
			t.Errorf("ended: %+v", st)
		}
	})
}

func TestFlightThatFailsIsOneErrorHoweverManyFollowIt(t *testing.T) {
	for name, end := range map[string]func() (string, error){
		"error":  func() (string, error) { return "", errQuery },
		"panic":  func() (string, error) { return explode("boom") },
		"Goexit": func() (string, error) { runtime.Goexit(); return "", nil },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, ctx context.Context) {
				var g local.Group[string, string]
				s := newScript()
				do(&g, ctx, "key", s.fn)
				s.mustHaveRun(t, 1)
				do(&g, ctx, "key", s.fn)
				do(&g, ctx, "key", s.fn)
				synctest.Wait()
				s.end <- end
				synctest.Wait()
				if st := g.Stats(); st != (local.Stats{Requests: 3, Leaders: 1, Followers: 2, Errors: 1}) {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

func TestResetStatsClearsTheCountsAndKeepsTheGauges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		const keys = 200
		s := newScript()
		for i := range keys {
			<-g.DoChan(t.Context(), strconv.Itoa(i), func(context.Context) (string, error) { return "", errQuery })
		}
		calls, _ := queue(t, &g, 2, s.fn)
		g.ResetStats()
		if st := g.Stats(); st != (local.Stats{ActiveFlights: 1, Waiting: 2}) {
			t.Errorf("after the reset: %+v", st)
		}
		s.ends("", errQuery)
		ended(t, calls[0])
		ended(t, calls[1])
		if st := g.Stats(); st != (local.Stats{Errors: 1}) {
			t.Errorf("after the flight: %+v", st)
		}
	})
}

// TestGaugesReturnToZeroWhenCallersLeaveAsTheFlightEnds makes leaving and
// ending race: a caller must be subtracted once, by whichever came first.
func TestGaugesReturnToZeroWhenCallersLeaveAsTheFlightEnds(t *testing.T) {
	var g local.Group[string, string]
	for i := range 3000 {
		ctx, cancel := context.WithCancel(context.Background())
		release := make(chan struct{})
		fn := func(context.Context) (string, error) { <-release; return "value", nil }
		calls := []<-chan outcome{do(&g, ctx, "key", fn), do(&g, ctx, "key", fn), do(&g, ctx, "key", fn)}
		for g.Stats().Waiting != 3 {
			runtime.Gosched()
		}
		if i%2 == 0 {
			close(release)
			cancel()
		} else {
			cancel()
			close(release)
		}
		for _, call := range calls {
			if o := <-call; o.err != nil && (o.err != context.Canceled || o.val != "") || o.err == nil && o.val != "value" {
				t.Fatalf("the call ended in %+v", o)
			}
		}
		for g.Stats().ActiveFlights != 0 {
			runtime.Gosched()
		}
		if st := g.Stats(); st.Waiting != 0 {
			t.Fatalf("flight %d: %d callers wait for nothing", i, st.Waiting)
		}
	}
}

// TestLateCallerNeverGetsAResultSomeoneAlreadyHas makes many goroutines call
// again the moment they are woken. A result is the number of the execution it
// came from. Without Forget, executions of one key that reach callers follow
// one another, so whoever has seen a result before it calls must get a higher
// one.
func TestLateCallerNeverGetsAResultSomeoneAlreadyHas(t *testing.T) {
	const callers, calls = 24, 1500
	var c lateCalls
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for i := range calls {
				if err := c.call(caller, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for c.group.Stats().ActiveFlights != 0 {
		runtime.Gosched()
	}
	st := c.group.Stats()
	want := local.Stats{
		Requests:  c.leaders.Load() + c.followers.Load(),
		Leaders:   c.leaders.Load(),
		Followers: c.followers.Load(),
	}
	if st != want || st.Leaders != c.executed.Load() {
		t.Errorf("%+v, callers counted %+v, %d executions", st, want, c.executed.Load())
	}
	// A caller without a role is one whose context had ended before it called.
	if refused := callers*calls - int(st.Requests); refused < 0 || refused > int(c.left.Load()) {
		t.Errorf("%d of %d calls have no role, %d left", refused, callers*calls, c.left.Load())
	}
	if st.Followers == 0 {
		t.Error("nobody followed: nothing was tested")
	}
}

// lateCalls counts calls to a group. Each result is the number of its execution.
type lateCalls struct {
	group local.Group[int, int64]
	runs  [2]atomic.Int64 // executions started, by key
	seen  [2]atomic.Int64 // the latest execution whose result a caller has, by key

	executed, left, leaders, followers atomic.Uint64
}

// call calls once, and returns an error if the result is one that another caller
// had before this one called. Some callers leave.
func (c *lateCalls) call(caller, i int) error {
	key := (caller + i) % len(c.runs)
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if kind := (caller + i/7) % 4; kind > 0 {
		ctx, cancel = context.WithCancel(ctx)
		if kind == 3 {
			go cancel()
		}
	}
	before := c.seen[key].Load()
	got, role, err := c.group.Do(ctx, key, func(context.Context) (int64, error) {
		c.executed.Add(1)
		run := c.runs[key].Add(1)
		if run%3 == 0 {
			runtime.Gosched()
		}
		return run, nil
	})
	cancel()
	switch {
	case errors.Is(err, context.Canceled):
		c.left.Add(1)
	case err != nil:
		return err
	case got <= before:
		return fmt.Errorf("got the result of execution %d after %d was known to have ended", got, before)
	default:
		for latest := c.seen[key].Load(); latest < got && !c.seen[key].CompareAndSwap(latest, got); {
			latest = c.seen[key].Load()
		}
	}
	switch role {
	case coalesce.Leader:
		c.leaders.Add(1)
	case coalesce.LocalFollower:
		c.followers.Add(1)
	}
	return nil
}
