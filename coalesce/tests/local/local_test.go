package local_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

var errQuery = errors.New("the query failed")

func TestLoneCallerLeadsAndGetsItsOwnResult(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		val, role, err := g.Do(ctx, "key", func(context.Context) (string, error) { return "value", nil })
		if val != "value" || role != coalesce.Leader || err != nil {
			t.Errorf("Do = %q, %v, %v", val, role, err)
		}
	})
}

func TestValueThatComesWithAnErrorIsReturnedWithIt(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, ctx, "key", s.fn)
		synctest.Wait()
		follower := do(&g, ctx, "key", mustNotRun(t))
		mustWait(t, follower)
		s.ends("partial", errQuery)
		mustEnd(t, leader, outcome{val: "partial", role: coalesce.Leader, err: errQuery})
		mustEnd(t, follower, outcome{val: "partial", role: coalesce.LocalFollower, err: errQuery})
	})
}

func TestOverlappingCallsForOneKeyShareOneExecution(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		var followers []<-chan outcome
		for range 100 {
			followers = append(followers, do(&g, cancellable(t), "key", s.fn), do(&g, context.Background(), "key", s.fn))
		}
		synctest.Wait()
		s.ends("value", nil)
		mustEnd(t, leader, outcome{val: "value", role: coalesce.Leader})
		for _, follower := range followers {
			mustEnd(t, follower, outcome{val: "value", role: coalesce.LocalFollower})
		}
		s.mustHaveRun(t, 1)
	})
}

func TestCallAfterTheEndOfAFlightStartsItsOwn(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		for i := range 3 {
			want := strconv.Itoa(i)
			val, role, err := g.Do(ctx, "key", func(context.Context) (string, error) { return want, nil })
			if val != want || role != coalesce.Leader || err != nil {
				t.Fatalf("call %d: Do = %q, %v, %v", i, val, role, err)
			}
		}
	})
}

func TestFlightsOfDifferentKeysRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		const keys = 1000 // many more than there are locks
		scripts := make([]*script, keys)
		callers := make([]<-chan outcome, keys)
		for i := range keys {
			scripts[i] = newScript()
			callers[i] = do(&g, t.Context(), strconv.Itoa(i), scripts[i].fn)
		}
		for i := range keys {
			scripts[i].mustHaveRun(t, 1)
		}
		for i := range keys {
			scripts[i].ends(strconv.Itoa(i), nil)
		}
		for i := range keys {
			mustEnd(t, callers[i], outcome{val: strconv.Itoa(i), role: coalesce.Leader})
		}
	})
}

func TestKeysOfAnyComparableTypeAreMergedByEquality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct {
			table string
			id    any
		}
		var g local.Group[key, int]
		release := make(chan struct{})
		fn := func(n int) func(context.Context) (int, error) {
			return func(context.Context) (int, error) { <-release; return n, nil }
		}
		first := g.DoChan(t.Context(), key{"product", int32(7)}, fn(1))
		equal := g.DoChan(t.Context(), key{"pro" + string([]byte("duct")), int32(7)}, fn(2))
		other := g.DoChan(t.Context(), key{"product", int64(7)}, fn(3))
		close(release)
		if r := <-first; r != (local.Result[int]{Val: 1, Role: coalesce.Leader}) {
			t.Errorf("first: %+v", r)
		}
		if r := <-equal; r != (local.Result[int]{Val: 1, Role: coalesce.LocalFollower}) {
			t.Errorf("equal key: %+v", r)
		}
		if r := <-other; r != (local.Result[int]{Val: 3, Role: coalesce.Leader}) {
			t.Errorf("other key: %+v", r)
		}
	})
}

func TestGroupsDoNotShareFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a, b local.Group[string, string]
		inA, inB := newScript(), newScript()
		callerOfA := do(&a, t.Context(), "key", inA.fn)
		callerOfB := do(&b, t.Context(), "key", inB.fn)
		inA.mustHaveRun(t, 1)
		inB.mustHaveRun(t, 1)
		inA.ends("a", nil)
		inB.ends("b", nil)
		mustEnd(t, callerOfA, outcome{val: "a", role: coalesce.Leader})
		mustEnd(t, callerOfB, outcome{val: "b", role: coalesce.Leader})
	})
}

func TestDoChanDeliversTheResult(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		r := <-g.DoChan(ctx, "key", func(context.Context) (string, error) { return "partial", errQuery })
		if r != (local.Result[string]{Val: "partial", Err: errQuery, Role: coalesce.Leader}) {
			t.Errorf("got %+v", r)
		}
	})
}

func TestDoChanDoesNotBlockAndHasJoinedWhenItReturns(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		leader := g.DoChan(ctx, "key", s.fn)
		follower := g.DoChan(ctx, "key", mustNotRun(t))
		if st := g.Stats(); st.Leaders != 1 || st.Followers != 1 || st.ActiveFlights != 1 || st.Waiting != 2 {
			t.Errorf("right after DoChan: %+v", st)
		}
		s.ends("value", nil)
		if r := <-leader; r != (local.Result[string]{Val: "value", Role: coalesce.Leader}) {
			t.Errorf("leader: %+v", r)
		}
		if r := <-follower; r != (local.Result[string]{Val: "value", Role: coalesce.LocalFollower}) {
			t.Errorf("follower: %+v", r)
		}
	})
}

func TestDoChanNeedsNoReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		s := newScript()
		ch := g.DoChan(t.Context(), "key", s.fn)
		s.ends("value", nil)
		synctest.Wait() // the bubble ends only if nothing is blocked on ch
		if len(ch) != 1 {
			t.Errorf("%d results in the channel, want 1", len(ch))
		}
	})
}

func TestDoChanAndDoShareAFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		s := newScript()
		leader := do(&g, ctx, "key", s.fn)
		s.mustHaveRun(t, 1)
		follower := g.DoChan(t.Context(), "key", mustNotRun(t))
		s.ends("value", nil)
		mustEnd(t, leader, outcome{val: "value", role: coalesce.Leader})
		if r := <-follower; r != (local.Result[string]{Val: "value", Role: coalesce.LocalFollower}) {
			t.Errorf("follower: %+v", r)
		}
	})
}

func TestForgetMakesTheNextCallStartANewFlight(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		old, young := newScript(), newScript()
		oldLeader := do(&g, ctx, "key", old.fn)
		old.mustHaveRun(t, 1)
		oldFollower := do(&g, ctx, "key", mustNotRun(t))
		mustWait(t, oldFollower)

		g.Forget("key")
		youngLeader := do(&g, ctx, "key", young.fn)
		young.mustHaveRun(t, 1)
		youngFollower := do(&g, ctx, "key", mustNotRun(t))
		mustWait(t, youngFollower)

		// The younger ends first: the older is not touched by it.
		young.ends("young", nil)
		mustEnd(t, youngLeader, outcome{val: "young", role: coalesce.Leader})
		mustEnd(t, youngFollower, outcome{val: "young", role: coalesce.LocalFollower})
		mustWait(t, oldLeader)
		mustWait(t, oldFollower)
		if old.ctx.Err() != nil {
			t.Error("Forget ended the context of the flight")
		}
		old.ends("old", nil)
		mustEnd(t, oldLeader, outcome{val: "old", role: coalesce.Leader})
		mustEnd(t, oldFollower, outcome{val: "old", role: coalesce.LocalFollower})
	})
}

func TestForgottenFlightThatEndsLeavesTheNewerOneInPlace(t *testing.T) {
	inBubble(t, func(t *testing.T, ctx context.Context) {
		var g local.Group[string, string]
		old, young := newScript(), newScript()
		oldLeader := do(&g, ctx, "key", old.fn)
		old.mustHaveRun(t, 1)
		g.Forget("key")
		youngLeader := do(&g, ctx, "key", young.fn)
		young.mustHaveRun(t, 1)

		old.ends("old", nil)
		mustEnd(t, oldLeader, outcome{val: "old", role: coalesce.Leader})

		third := do(&g, ctx, "key", mustNotRun(t))
		mustWait(t, third)
		young.ends("young", nil)
		mustEnd(t, youngLeader, outcome{val: "young", role: coalesce.Leader})
		mustEnd(t, third, outcome{val: "young", role: coalesce.LocalFollower})
	})
}

func TestForgottenFlightThatIsCancelledLeavesTheNewerOneInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		old, young := newScript(), newScript()
		ctx, leave := context.WithCancel(t.Context())
		oldLeader := do(&g, ctx, "key", old.fn)
		old.mustHaveRun(t, 1)
		g.Forget("key")
		youngLeader := do(&g, t.Context(), "key", young.fn)
		young.mustHaveRun(t, 1)

		leave()
		mustEnd(t, oldLeader, outcome{role: coalesce.Leader, err: context.Canceled})

		third := do(&g, t.Context(), "key", mustNotRun(t))
		mustWait(t, third)
		young.ends("young", nil)
		mustEnd(t, youngLeader, outcome{val: "young", role: coalesce.Leader})
		mustEnd(t, third, outcome{val: "young", role: coalesce.LocalFollower})
		old.ends("", nil)
	})
}

func TestForgetTouchesItsOwnKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		g.Forget("a key that was never seen")
		scripts := map[string]*script{}
		var callers []<-chan outcome
		const keys = 200 // some share a lock
		for i := range keys {
			key := strconv.Itoa(i)
			scripts[key] = newScript()
			callers = append(callers, do(&g, t.Context(), key, scripts[key].fn))
		}
		synctest.Wait()
		g.Forget("0")
		for i := 1; i < keys; i++ {
			callers = append(callers, do(&g, t.Context(), strconv.Itoa(i), mustNotRun(t)))
		}
		synctest.Wait()
		for _, s := range scripts {
			s.ends("", nil)
		}
		for _, caller := range callers {
			ended(t, caller)
		}
	})
}

func TestForgetAllForgetsEveryKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		g.ForgetAll()
		const keys = 1000 // many more than there are locks
		old, young := newScript(), newScript()
		var oldCallers, youngCallers []<-chan local.Result[string]
		for i := range keys {
			oldCallers = append(oldCallers, g.DoChan(t.Context(), strconv.Itoa(i), func(context.Context) (string, error) {
				return (<-old.end)()
			}))
		}
		g.ForgetAll()
		for i := range keys {
			youngCallers = append(youngCallers, g.DoChan(t.Context(), strconv.Itoa(i), func(context.Context) (string, error) {
				return (<-young.end)()
			}))
		}
		for range keys {
			old.ends("old", nil)
			young.ends("young", nil)
		}
		for i := range keys {
			if r := <-oldCallers[i]; r != (local.Result[string]{Val: "old", Role: coalesce.Leader}) {
				t.Fatalf("key %d before ForgetAll: %+v", i, r)
			}
			if r := <-youngCallers[i]; r != (local.Result[string]{Val: "young", Role: coalesce.Leader}) {
				t.Fatalf("key %d after ForgetAll: %+v", i, r)
			}
		}
	})
}

func TestTierIsAGroupOfTheSharedInterface(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var g local.Group[string, string]
		tier := local.Tier(&g)
		old := newScript()
		oldLeader := do(&g, t.Context(), "key", old.fn)
		old.mustHaveRun(t, 1)

		if err := tier.Forget(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		val, role, err := tier.Do(t.Context(), "key", func(context.Context) (string, error) { return "young", errQuery })
		if val != "young" || role != coalesce.Leader || err != errQuery {
			t.Errorf("Do = %q, %v, %v", val, role, err)
		}
		old.ends("old", nil)
		mustEnd(t, oldLeader, outcome{val: "old", role: coalesce.Leader})
		if st := g.Stats(); st.Requests != 2 {
			t.Errorf("the tier counts elsewhere: %+v", st)
		}
	})
}
