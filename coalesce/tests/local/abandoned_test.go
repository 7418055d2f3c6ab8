package local_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// errCanceled is what a query returns whose context was cancelled.
var errCanceled = fmt.Errorf("query: %w", context.Canceled)

func TestFollowersOfAnAbandonedFlightJoinAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		first, next := newScript(), newScript()
		leader := do(&g, ctx, "key", first.fn)
		first.mustHaveRun(t, 1)
		var followers []<-chan outcome
		for range 5 {
			followers = append(followers, do(&g, ctx, "key", next.fn), do(&g, cancellable(t), "key", next.fn))
		}
		synctest.Wait()
		first.ends("partial", errCanceled)
		mustEnd(t, leader, outcome{val: "partial", role: coalesce.Leader, err: errCanceled})
		next.mustHaveRun(t, 1)
		next.ends("value", nil)
		leaders := 0
		for _, follower := range followers {
			o := ended(t, follower)
			if o.role == coalesce.Leader {
				leaders++
			}
			if o.val != "value" || o.err != nil || o.panicked != nil || o.exited {
				t.Errorf("a follower ended in %+v", o)
			}
		}
		if leaders != 1 {
			t.Errorf("%d of the followers led the second flight", leaders)
		}
	})
}

func TestCallersThatAllAbandonRunTheirFunctionsOnceEach(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		const callers = 20
		first := newScript()
		calls := []<-chan outcome{do(&g, ctx, "key", first.fn)}
		first.mustHaveRun(t, 1)
		var ran [callers]atomic.Int32
		for i := 1; i < callers; i++ {
			calls = append(calls, do(&g, ctx, "key", func(context.Context) (string, error) {
				ran[i].Add(1)
				return "", errCanceled
			}))
		}
		synctest.Wait()
		first.ends("", errCanceled)
		for _, call := range calls {
			mustEnd(t, call, outcome{role: coalesce.Leader, err: errCanceled})
		}
		for i := 1; i < callers; i++ {
			if n := ran[i].Load(); n != 1 {
				t.Errorf("the function of caller %d ran %d times", i, n)
			}
		}
	})
}

// TestCallerThatGoesTakesNobodyWithIt has a function use its caller's context
// instead of the one that it is given.
func TestCallerThatGoesTakesNobodyWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		request, leave := context.WithCancel(t.Context())
		leader := do(&g, request, "key", func(context.Context) (string, error) {
			<-request.Done()
			return "", fmt.Errorf("query: %w", request.Err())
		})
		synctest.Wait()
		follower := do(&g, t.Context(), "key", func(context.Context) (string, error) { return "value", nil })
		mustWait(t, follower)
		receiver := g.DoChan(t.Context(), "key", func(context.Context) (string, error) { return "value", nil })
		leave()
		if o := ended(t, leader); !errors.Is(o.err, context.Canceled) || o.role != coalesce.Leader {
			t.Errorf("the caller that left ended in %+v", o)
		}
		if o := ended(t, follower); o.val != "value" || o.err != nil {
			t.Errorf("the caller that stayed ended in %+v", o)
		}
		if r := <-receiver; r.Val != "value" || r.Err != nil {
			t.Errorf("the receiver got %+v", r)
		}
	})
}

func TestFollowerOfAnAbandonedFlightThatHasLeftRunsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, t.Context(), "key", s.fn)
		s.mustHaveRun(t, 1)
		ctx, leave := context.WithCancel(t.Context())
		follower := do(&g, ctx, "key", mustNotRun(t))
		receiver := g.DoChan(ctx, "key", mustNotRun(t))
		synctest.Wait()
		s.end <- func() (string, error) {
			leave() // at the same moment
			return "", errCanceled
		}
		mustEnd(t, leader, outcome{role: coalesce.Leader, err: errCanceled})
		mustEnd(t, follower, outcome{role: coalesce.LocalFollower, err: context.Canceled})
		if r := <-receiver; r != (local.Result[string]{Err: context.Canceled, Role: coalesce.LocalFollower}) {
			t.Errorf("the receiver got %+v", r)
		}
	})
}

func TestCancellationOfTheFlightItselfReachesItsLastCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		ctx, leave := context.WithCancel(t.Context())
		call := do(&g, ctx, "key", func(ctx context.Context) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		})
		synctest.Wait()
		leave()
		mustEnd(t, call, outcome{role: coalesce.Leader, err: context.Canceled})
	})
}

func TestAsyncFlightIsAbandonedByACancellationThatIsNotItsOwn(t *testing.T) {
	for _, tt := range []struct {
		what          string
		err           error
		returned      bool
		wantAbandoned bool
	}{
		{"a cancellation", errCanceled, true, true},
		{"another error", errQuery, true, false},
		{"no error", nil, true, false},
	} {
		t.Run(tt.what, func(t *testing.T) {
			var g local.Group[string, string]
			leader, follower := g.Join("key"), g.Join("key")
			ctx := leader.Start(t.Context())
			leader.End("value", tt.err, tt.returned).Tell()
			for name, j := range map[string]local.Joined[string, string]{"leader": leader, "follower": follower} {
				val, err := j.Wait(t.Context())
				if val == nil || *val != "value" || err != tt.err {
					t.Errorf("the %s got %v, %v", name, val, err)
				}
			}
			if leader.Abandoned() {
				t.Error("the leader is to join anew")
			}
			if got := follower.Abandoned(); got != tt.wantAbandoned {
				t.Errorf("the follower is to join anew: %v, want %v", got, tt.wantAbandoned)
			}
			if ctx.Err() == nil {
				t.Error("the context of the flight has not ended with it")
			}
		})
	}
}

// loop wraps itself.
type loop struct{ next []error }

func (*loop) Error() string     { return "loop" }
func (l *loop) Unwrap() []error { return l.next }

func TestErrorThatWrapsItselfReachesEveryCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		endless := &loop{}
		endless.next = []error{endless, endless}
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		follower := do(&g, ctx, "key", mustNotRun(t))
		synctest.Wait()
		s.ends("", endless)
		mustEnd(t, leader, outcome{role: coalesce.Leader, err: endless})
		mustEnd(t, follower, outcome{role: coalesce.LocalFollower, err: endless})
	})
}

// asker is an error whose methods call the Group that it is a result of.
type asker struct{ ask func() }

func (*asker) Error() string   { return "asker" }
func (a *asker) Is(error) bool { a.ask(); return false }

func TestErrorWhoseMethodsCallTheGroupReachesEveryCaller(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		curious := &asker{func() {
			g.Stats()
			g.Forget("key")
		}}
		s := newScript()
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		follower := do(&g, ctx, "key", mustNotRun(t))
		synctest.Wait()
		s.ends("", curious)
		mustEnd(t, leader, outcome{role: coalesce.Leader, err: curious})
		mustEnd(t, follower, outcome{role: coalesce.LocalFollower, err: curious})
	})
}

func TestPanicWithANilPanicErrorIsAPanic(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		e := mustPanic(t, do(&g, ctx, "key", func(context.Context) (string, error) { panic((*coalesce.PanicError)(nil)) }))
		if inner, ok := e.Value.(*coalesce.PanicError); !ok || inner != nil || len(e.Stack) == 0 {
			t.Errorf("it panicked with %#v", e)
		}
	})
}

// TestNoCallerIsLostAmongThoseThatAbandonAndLeave has many callers of one key on
// real threads. A flight that is lost would hang one of them.
func TestNoCallerIsLostAmongThoseThatAbandonAndLeave(t *testing.T) {
	var g local.Group[string, string]
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for round := range 500 {
				ctx, leave := context.WithCancel(context.Background())
				if i%2 == 0 {
					ctx = context.Background()
				}
				ran := 0
				_, role, err := g.Do(ctx, "key", func(context.Context) (string, error) {
					ran++
					if (i+round)%5 == 0 {
						leave() // with the context that the function uses
					}
					if (i+round)%3 == 0 {
						return "", errCanceled
					}
					return "value", nil
				})
				leave()
				if led := role == coalesce.Leader; ran > 1 || led != (ran == 1) && ctx.Done() == nil {
					t.Errorf("a caller came back as %s, and its function ran %d times", role, ran)
				}
				if role == coalesce.LocalFollower && err != nil {
					t.Errorf("a follower got %v", err)
				}
			}
		})
	}
	wg.Wait()
	if st := g.Stats(); st.ActiveFlights != 0 || st.Waiting != 0 {
		t.Errorf("%+v", st)
	}
}
