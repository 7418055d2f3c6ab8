package local_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestCallerWhoseContextEndsReturnsAtOnceAndTheOthersGetTheResult(t *testing.T) {
	const n = 5
	for leaver := range n {
		t.Run(fmt.Sprintf("caller %d of %d leaves", leaver+1, n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g local.Group[string, string]
				s := newScript()
				calls, leave := queue(t, &g, n, s.fn)

				leave[leaver]()
				mustEnd(t, calls[leaver], outcome{role: roleOf(leaver), err: context.Canceled})
				if s.ctx.Err() != nil {
					t.Fatal("one caller left and the function's context ended")
				}
				s.ends("value", nil)
				for i, call := range calls {
					if i != leaver {
						mustEnd(t, call, outcome{val: "value", role: roleOf(i)})
					}
				}
				s.mustHaveRun(t, 1)
			})
		})
	}
}

func TestFunctionIsCancelledExactlyWhenTheLastCallerLeaves(t *testing.T) {
	const n = 5
	for last := range n {
		t.Run(fmt.Sprintf("caller %d of %d is the last", last+1, n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var g local.Group[string, string]
				var cause error
				returned := false
				var flight context.Context
				calls, leave := queue(t, &g, n, func(ctx context.Context) (string, error) {
					flight = ctx
					<-ctx.Done()
					cause = context.Cause(ctx)
					returned = true
					return "", ctx.Err()
				})

				for i := range n {
					if i == last {
						continue
					}
					leave[i]()
					mustEnd(t, calls[i], outcome{role: roleOf(i), err: context.Canceled})
					if returned || flight.Err() != nil {
						t.Fatal("cancelled with a caller left")
					}
				}
				mustWait(t, calls[last])
				leave[last]()
				mustEnd(t, calls[last], outcome{role: roleOf(last), err: context.Canceled})
				if !returned || flight.Err() != context.Canceled || cause != context.Canceled {
					t.Errorf("returned %v, err %v, cause %v", returned, flight.Err(), cause)
				}
			})
		})
	}
}

// queue makes n calls that join one flight, in order.
func queue(t *testing.T, g *local.Group[string, string], n int, fn function) ([]<-chan outcome, []context.CancelFunc) {
	calls := make([]<-chan outcome, n)
	leave := make([]context.CancelFunc, n)
	for i := range n {
		var ctx context.Context
		ctx, leave[i] = context.WithCancel(t.Context())
		calls[i] = do(g, ctx, "key", fn)
		synctest.Wait()
	}
	return calls, leave
}

func roleOf(position int) coalesce.Role {
	if position == 0 {
		return coalesce.Leader
	}
	return coalesce.LocalFollower
}

func TestReceiverOfDoChanLeavesByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		ctx, leave := context.WithCancel(t.Context())
		leader := g.DoChan(ctx, "key", s.fn)
		follower := do(&g, t.Context(), "key", mustNotRun(t))
		synctest.Wait()
		leave()
		if r := <-leader; r != (local.Result[string]{Err: context.Canceled, Role: coalesce.Leader}) {
			t.Errorf("leaver: %+v", r)
		}
		if s.ctx.Err() != nil {
			t.Error("the function's context ended with a caller left")
		}
		s.ends("value", nil)
		mustEnd(t, follower, outcome{val: "value", role: coalesce.LocalFollower})
	})
}

func TestLastReceiverOfDoChanThatLeavesCancelsTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		ctx, leave := context.WithCancel(t.Context())
		cancelled := false
		ch := g.DoChan(ctx, "key", func(ctx context.Context) (string, error) {
			<-ctx.Done()
			cancelled = true
			return "", ctx.Err()
		})
		synctest.Wait()
		leave()
		if r := <-ch; r.Err != context.Canceled {
			t.Errorf("leaver: %+v", r)
		}
		synctest.Wait()
		if !cancelled {
			t.Error("the function goes on for nobody")
		}
	})
}

func TestFollowerThatLeavesALeaderThatCannotDoesNotCancelIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, context.Background(), "key", s.fn)
		s.mustHaveRun(t, 1)
		ctx, leave := context.WithCancel(t.Context())
		follower := do(&g, ctx, "key", mustNotRun(t))
		mustWait(t, follower)
		leave()
		mustEnd(t, follower, outcome{role: coalesce.LocalFollower, err: context.Canceled})
		third := do(&g, t.Context(), "key", mustNotRun(t))
		mustWait(t, third)
		s.ends("value", nil)
		mustEnd(t, leader, outcome{val: "value", role: coalesce.Leader})
		mustEnd(t, third, outcome{val: "value", role: coalesce.LocalFollower})
	})
}

func TestCancelledFlightIsNeverJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		stubborn, fresh := newScript(), newScript()
		calls, leave := queue(t, &g, 2, stubborn.fn)
		for i := range calls {
			leave[i]()
			mustEnd(t, calls[i], outcome{role: roleOf(i), err: context.Canceled})
		}

		// The cancelled function still runs; a new one starts beside it.
		leader := do(&g, t.Context(), "key", fresh.fn)
		fresh.mustHaveRun(t, 1)
		if fresh.ctx.Err() != nil {
			t.Error("the new flight starts cancelled")
		}
		// Its late end neither reaches the new flight nor takes it away.
		stubborn.ends("stale", nil)
		mustWait(t, leader)
		follower := do(&g, t.Context(), "key", mustNotRun(t))
		mustWait(t, follower)
		fresh.ends("fresh", nil)
		mustEnd(t, leader, outcome{val: "fresh", role: coalesce.Leader})
		mustEnd(t, follower, outcome{val: "fresh", role: coalesce.LocalFollower})
	})
}

func TestCallerCanComeBackToAFlightItLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		calls, leave := queue(t, &g, 2, s.fn)
		for range 3 {
			ctx, leaveAgain := context.WithCancel(t.Context())
			visitor := do(&g, ctx, "key", mustNotRun(t))
			mustWait(t, visitor)
			leaveAgain()
			mustEnd(t, visitor, outcome{role: coalesce.LocalFollower, err: context.Canceled})
		}
		leave[0]()
		mustEnd(t, calls[0], outcome{role: coalesce.Leader, err: context.Canceled})
		if s.ctx.Err() != nil {
			t.Error("the visits ended the function's context")
		}
		s.ends("value", nil)
		mustEnd(t, calls[1], outcome{val: "value", role: coalesce.LocalFollower})
	})
}

func TestFunctionSeesTheValuesOfTheFirstCaller(t *testing.T) {
	type name struct{}
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		release := make(chan struct{})
		leader := do(&g, context.WithValue(ctx, name{}, "first"), "key", func(ctx context.Context) (string, error) {
			<-release
			val, _ := ctx.Value(name{}).(string)
			return val, nil
		})
		synctest.Wait()
		follower := do(&g, context.WithValue(ctx, name{}, "second"), "key", mustNotRun(t))
		synctest.Wait()
		close(release)
		mustEnd(t, leader, outcome{val: "first", role: coalesce.Leader})
		mustEnd(t, follower, outcome{val: "first", role: coalesce.LocalFollower})
	})
}

func TestFunctionKeepsTheValuesOfAFirstCallerThatHasLeft(t *testing.T) {
	type name struct{}
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		ctx, leave := context.WithCancel(context.WithValue(t.Context(), name{}, "first"))
		do(&g, ctx, "key", s.fn)
		synctest.Wait()
		follower := do(&g, t.Context(), "key", mustNotRun(t))
		synctest.Wait()
		leave()
		synctest.Wait()
		if got := s.ctx.Value(name{}); got != "first" {
			t.Errorf("Value = %v", got)
		}
		s.ends("", nil)
		ended(t, follower)
	})
}

func TestCauseOfTheFirstCallersCancellationDoesNotReachTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		errTabClosed := errors.New("the browser tab was closed")
		ctx, leave := context.WithCancelCause(t.Context())
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		ctx2, leave2 := context.WithCancelCause(t.Context())
		follower := do(&g, ctx2, "key", mustNotRun(t))
		mustWait(t, follower)

		child, cancelChild := context.WithCancel(s.ctx)
		defer cancelChild()

		leave(errTabClosed)
		mustEnd(t, leader, outcome{role: coalesce.Leader, err: context.Canceled})
		if cause := context.Cause(s.ctx); cause != nil {
			t.Errorf("a context that has not ended has the cause %v", cause)
		}
		if child.Err() != nil {
			t.Error("the first caller's end reached a context derived from the function's")
		}
		leave2(errTabClosed)
		mustEnd(t, follower, outcome{role: coalesce.LocalFollower, err: context.Canceled})
		for _, c := range []context.Context{s.ctx, child} {
			if c.Err() != context.Canceled || context.Cause(c) != context.Canceled {
				t.Errorf("err %v, cause %v, want context.Canceled for both", c.Err(), context.Cause(c))
			}
		}
		s.ends("", nil)
	})
}

func TestDeadlineOfTheFirstCallerDoesNotReachTheFunction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		leader := do(&g, ctx, "key", func(ctx context.Context) (string, error) {
			if deadline, ok := ctx.Deadline(); ok || !deadline.IsZero() {
				t.Errorf("the function has the deadline %v", deadline)
			}
			select {
			case <-time.After(time.Minute):
				return "value", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		})
		synctest.Wait()
		follower := do(&g, t.Context(), "key", mustNotRun(t))

		if got := <-leader; got != (outcome{role: coalesce.Leader, err: context.DeadlineExceeded}) {
			t.Errorf("leader ended in %+v", got)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("the leader waited %v, its deadline was one second", waited)
		}
		if got := <-follower; got != (outcome{val: "value", role: coalesce.LocalFollower}) {
			t.Errorf("follower ended in %+v", got)
		}
		if waited := time.Since(start); waited != time.Minute {
			t.Errorf("the follower waited %v, the function took a minute", waited)
		}
	})
}

func TestCallerWithAnEndedContextNeitherStartsNorJoinsAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		cancelled, cancel := context.WithCancel(t.Context())
		cancel()
		expired, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()

		refused := func() {
			t.Helper()
			for ctx, want := range map[context.Context]error{cancelled: context.Canceled, expired: context.DeadlineExceeded} {
				mustEnd(t, do(&g, ctx, "key", mustNotRun(t)), outcome{err: want})
				if r := <-g.DoChan(ctx, "key", mustNotRun(t)); r != (local.Result[string]{Err: want}) {
					t.Errorf("DoChan: %+v", r)
				}
			}
		}
		refused()
		if st := g.Stats(); st != (local.Stats{}) {
			t.Errorf("counted: %+v", st)
		}

		s := newScript()
		leader := do(&g, t.Context(), "key", s.fn)
		s.mustHaveRun(t, 1)
		refused()
		if st := g.Stats(); st != (local.Stats{Requests: 1, Leaders: 1, ActiveFlights: 1, Waiting: 1}) {
			t.Errorf("counted: %+v", st)
		}
		s.ends("value", nil)
		mustEnd(t, leader, outcome{val: "value", role: coalesce.Leader})
	})
}

func TestFunctionsContextEndsWithItsFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, cancellable(t), "key", s.fn)
		s.mustHaveRun(t, 1)
		if s.ctx.Err() != nil {
			t.Error("ended before its flight")
		}
		derived := false
		context.AfterFunc(s.ctx, func() { derived = true })
		s.ends("value", nil)
		mustEnd(t, leader, outcome{val: "value", role: coalesce.Leader})
		if s.ctx.Err() != context.Canceled || !derived {
			t.Errorf("Err = %v, derived ended: %v", s.ctx.Err(), derived)
		}
	})
}

func TestFunctionThatAsksLateForDoneFindsItClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		ctx, leave := context.WithCancel(t.Context())
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		leave()
		ended(t, leader)
		select {
		case <-s.ctx.Done():
		default:
			t.Error("Done is open after the last caller left")
		}
		s.ends("", nil)
	})
}
