package distributed_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

func TestACallerAfterTheEndNeverGetsTheEndedFlight(t *testing.T) {
	f := newFleet[int64](t, 2)
	var runs atomic.Int64
	for i := range int64(500) {
		// The same replica again at once: Redis may not know yet that the
		// flight before has ended.
		v, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (int64, error) { return runs.Add(1), nil })
		if err != nil || v != i+1 {
			t.Fatalf("call %d got the result of call %d: %v", i+1, v, err)
		}
	}
}

func TestAFollowerTakesOverWhenTheLeaseRunsOut(t *testing.T) {
	f := newFleet[string](t, 2)
	f.foreignLease("k", 200*time.Millisecond)
	var runs atomic.Int32
	answers := f.herd(context.Background(), 5, "k", func(context.Context) (string, error) {
		runs.Add(1)
		time.Sleep(10 * time.Millisecond) // the work, so that the other may join
		return "mine", nil
	})
	for _, a := range answers {
		if a.val != "mine" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	takeovers := f.groups[0].Stats().Distributed.Takeovers + f.groups[1].Stats().Distributed.Takeovers
	// Both saw the lease run out; the second may come when the first is done.
	if n := runs.Load(); n < 1 || n > 2 || takeovers != uint64(n) {
		t.Errorf("%d executions, %d takeovers", n, takeovers)
	}
}

func TestAFollowerTakesOverAtOnceWhenTheLeaderAbandons(t *testing.T) {
	f := newFleet[string](t, 1)
	f.foreignLease("k", time.Hour)
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "mine", nil })
		done <- a
	}()
	f.waitFollowers("k", 1)
	f.client().Del(context.Background(), "fleetcall:test:{k}:lease")
	f.client().Publish(context.Background(), "fleetcall:test:{k}@0", foreign(wire.KindAbandoned))
	if a := <-done; a.val != "mine" || a.role != coalesce.Leader || a.err != nil {
		t.Errorf("%+v", a)
	}
}

func TestAKeyWhoseLeadersDieIsPoisonedForAWhile(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxTakeovers(1))
	f.foreignDeath("k", "first", time.Minute)
	led := func() error {
		_, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "v", nil })
		f.quiet()
		return err
	}
	if err := led(); err != nil {
		t.Errorf("the one takeover that is allowed: %v", err)
	}
	if err := led(); err != nil {
		t.Errorf("an outcome must clear the attempts: %v", err)
	}
	f.foreignDeath("k", "first", 500*time.Millisecond)
	f.foreignDeath("k", "second", 500*time.Millisecond)
	if err := led(); !errors.Is(err, coalesce.ErrPoisoned) {
		t.Errorf("after two deaths: %v", err)
	}
	eventually(t, "the key recovers though it is asked for all the time", func() bool { return led() == nil })
}

type brokenError struct{ message string }

func (e *brokenError) Error() string { return e.message } // panics when e is nil

func TestAnErrorThatPanicsHurtsNobodyElse(t *testing.T) {
	f := newFleet[string](t, 2)
	answers := f.overlapping(1, "k", func(context.Context) (string, error) {
		var e *brokenError
		return "", e
	})
	for _, a := range answers {
		if a.err == nil {
			t.Errorf("%+v", a)
		}
	}
	f.quiet()
}

func TestAValueOfAnotherCodecDoesNotTurnCoalescingOffWithMaxAge(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxAge(time.Hour))
	f.join(distributed.WithMaxAge(time.Hour), distributed.WithCodec[string](otherCodec{coalesce.JSON[string]()}))
	f.waitSubscribed(2)
	var runs atomic.Int32
	for _, g := range f.groups {
		for range 3 {
			if _, _, err := g.Do(context.Background(), "k", func(context.Context) (string, error) {
				runs.Add(1)
				return "v", nil
			}); err != nil {
				t.Error(err)
			}
			f.quiet()
		}
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("%d executions, want one for each codec", n)
	}
}

func TestARingIsRefused(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	if _, err := open[string](ring); err == nil {
		t.Error("a Ring is accepted")
	}
}

func TestAMissedMessageIsFetchedAndNotGivenToThoseWhoCameLater(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 1)
	g := f.groups[0]
	f.foreignLease("k", time.Second)
	own := func(context.Context) (string, error) { return "new", nil }
	early := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", own)
		early <- a
	}()
	f.waitFollowers("k", 1)
	// The flight ends, its message is lost.
	ctx := context.Background()
	f.client().Set(ctx, "fleetcall:test:{k}:result:"+foreignFlight, foreignOutcome("json", `"old"`), 0)
	time.Sleep(20 * time.Millisecond) // the late caller's distance from the end
	late := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", own)
		late <- a
	}()
	if a := <-early; a.val != "old" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("the caller of the flight: %+v", a)
	}
	// The test's flight left its lease; let go of it.
	f.client().Del(ctx, "fleetcall:test:{k}:lease")
	if a := <-late; a.val != "new" || a.err != nil {
		t.Errorf("the caller after the flight: %+v", a)
	}
}

func TestTheFunctionIsCancelledWhenItsLastCallerLeavesAndNobodyJoined(t *testing.T) {
	f := newFleet[string](t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancelled := make(chan struct{})
	_, _, err := f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		cancel()
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-cancelled
	f.quiet()
}

func TestTheFunctionGoesOnForOtherReplicasWhenItsOwnCallersLeave(t *testing.T) {
	f := newFleet[string](t, 2)
	ctx, cancel := context.WithCancel(context.Background())
	started, release := make(chan struct{}), make(chan struct{})
	go f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		close(started)
		select {
		case <-release:
			return "v", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	<-started
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[1].Do(context.Background(), "k", func(context.Context) (string, error) { return "second execution", nil })
		done <- a
	}()
	f.waitFollowers("k", 1)
	cancel()
	time.Sleep(50 * time.Millisecond) // time for a wrong cancellation to arrive
	close(release)
	if a := <-done; a.val != "v" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("%+v", a)
	}
}

func TestAFunctionThatIgnoresItsContextDoesNotKeepItsCallersPastTheFlightTimeout(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithFlightTimeout(200*time.Millisecond))
	release := make(chan struct{})
	defer close(release)
	answers := f.herd(context.Background(), 50, "k", func(context.Context) (string, error) {
		<-release
		return "", nil
	})
	for _, a := range answers {
		if !errors.Is(a.err, coalesce.ErrFlightTimeout) || !errors.Is(a.err, context.DeadlineExceeded) {
			t.Errorf("%+v", a)
		}
	}
}

func TestScriptsAreLoadedAgainWhenRedisForgotThem(t *testing.T) {
	f := newFleet[string](t, 1)
	f.client().ScriptFlush(context.Background())
	if _, role, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "v", nil }); role != coalesce.Leader || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if s := f.groups[0].Stats().Distributed; s.RedisErrors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNewNamesTheOptionThatIsBad(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	for name, opt := range map[string]distributed.Option{
		"WithNamespace":     distributed.WithNamespace("a{b"),
		"WithLeaseTTL":      distributed.WithLeaseTTL(0),
		"WithFlightTimeout": distributed.WithFlightTimeout(-1),
		"WithMaxAge":        distributed.WithMaxAge(-1),
		"WithRedisTimeout":  distributed.WithRedisTimeout(time.Microsecond),
		"WithMaxTakeovers":  distributed.WithMaxTakeovers(-1),
		"WithCodec":         distributed.WithCodec[string](nil),
		"WithInlineLimit":   distributed.WithInlineLimit(-1),
		"WithPayloadLimit":  distributed.WithPayloadLimit(0),
		"WithLogger":        distributed.WithLogger(nil),
		"WithReplicaID":     distributed.WithReplicaID(""),
	} {
		if _, err := open[string](client, opt); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := open[string](nil); err == nil {
		t.Error("a nil client is accepted")
	}
}
