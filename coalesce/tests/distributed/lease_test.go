package distributed_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func TestALeaseIsRenewedForAsLongAsItsFunctionRuns(t *testing.T) {
	t.Parallel()
	// A busy machine may hold a renewal up for a moment.
	const ttl = 600 * time.Millisecond
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(ttl))
	var runs atomic.Int32
	answers := f.overlapping(5, "k", func(context.Context) (string, error) {
		runs.Add(1)
		time.Sleep(4 * ttl) // without renewals the lease would have run out
		return "v", nil
	})
	if n := roles(answers); runs.Load() != 1 || n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 1 {
		t.Errorf("%d executions, roles %v", runs.Load(), n)
	}
}

func TestALostLeaseIsCountedAndItsOutcomeStillGoesToThoseWhoJoined(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(150*time.Millisecond))
	var runs atomic.Int32
	answers := f.overlapping(5, "k", func(context.Context) (string, error) {
		runs.Add(1)
		f.waitFollowers("k", 1)
		// Somebody else has the lease now, for long.
		f.foreignLease("k", time.Hour)
		eventually(t, "the loss is noticed", func() bool {
			return f.groups[0].Stats().Distributed.LeaseLost+f.groups[1].Stats().Distributed.LeaseLost == 1
		})
		// The follower may look now and find its flight gone: it joins the
		// new holder's, which ends here.
		f.client().Del(context.Background(), "fleetcall:test:{k}:lease")
		return "v", nil
	})
	for _, a := range answers {
		if a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
}

// TestALeaseThatAShortFunctionLosesIsCountedOnce has functions that end before
// their lease is to be renewed: the release tells.
func TestALeaseThatAShortFunctionLosesIsCountedOnce(t *testing.T) {
	const lease = "fleetcall:test:{k}:lease"
	for name, tt := range map[string]struct {
		ttl  time.Duration
		lose func(f *fleet[string])
		want uint64
	}{
		"kept":    {time.Minute, func(*fleet[string]) {}, 0},
		"dropped": {time.Minute, func(f *fleet[string]) { f.client().Del(context.Background(), lease) }, 1},
		"taken by another": {time.Minute, func(f *fleet[string]) {
			f.set(lease, foreignHeld(time.Hour), time.Hour)
		}, 1},
		"forgotten": {time.Minute, func(f *fleet[string]) {
			if err := f.groups[1].Forget(context.Background(), "k"); err != nil {
				t.Error(err)
			}
		}, 0},
		"dropped, as a renewal finds too": {100 * time.Millisecond, func(f *fleet[string]) {
			f.client().Del(context.Background(), lease)
			eventually(f.t, "a renewal has found it", func() bool { return f.groups[0].Stats().Distributed.LeaseLost > 0 })
		}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := &leases{}
			f := newFleet[string](t, 2, distributed.WithLeaseTTL(tt.ttl), distributed.WithHooks(w))
			if _, role, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) {
				tt.lose(f)
				return "v", nil
			}); role != coalesce.Leader || err != nil {
				t.Errorf("%v, %v", role, err)
			}
			eventually(t, "the lease has been released", func() bool { return w.told(distributed.LeaseReleased) == 1 })
			eventually(t, "the loss has been counted", func() bool { return f.groups[0].Stats().Distributed.LeaseLost >= tt.want })
			if n := f.groups[0].Stats().Distributed.LeaseLost; n != tt.want || w.told(distributed.LeaseLost) != int(tt.want) {
				t.Errorf("%d leases lost, the observer was told of %d, want %d", n, w.told(distributed.LeaseLost), tt.want)
			}
		})
	}
}

// TestALeaseThatRanOutWhileNothingCouldBeSentIsCounted is about a process that is
// stopped for a while. Another has led since, and has ended before this one.
func TestALeaseThatRanOutWhileNothingCouldBeSentIsCounted(t *testing.T) {
	t.Parallel()
	const ttl = time.Second
	ended := make(chan struct{})
	hook := &meddler{step: "renew", do: func() { <-ended }}
	hook.times.Store(1)
	g, server := newPrompt(t, nil, hook, distributed.WithRedisTimeout(ttl), distributed.WithLeaseTTL(ttl))
	client := server.Client()
	if _, role, err := g.Do(t.Context(), "k", func(ctx context.Context) (string, error) {
		time.Sleep(ttl) // by this process's clock, too
		eventually(t, "the lease has run out", func() bool { return client.Exists(ctx, "fleetcall:test:{k}:lease").Val() == 0 })
		return "v", client.Del(ctx, "fleetcall:test:{k}:attempts").Err() // as the other's finish does
	}); role != coalesce.Leader || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	eventually(t, "the loss is counted", func() bool { return g.Stats().Distributed.LeaseLost == 1 })
	close(ended)
	if err := g.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := g.Stats().Distributed.LeaseLost; n != 1 {
		t.Errorf("%d leases lost", n)
	}
}

// TestAFinishThatItsClientRepeatsLosesNoLease has the first reply of a finish lost
// on its way. By the second, another flight has the lease.
func TestAFinishThatItsClientRepeatsLosesNoLease(t *testing.T) {
	t.Parallel()
	const ttl = 500 * time.Millisecond
	nothing := func(*fleet[string]) func() { return func() {} }
	for name, tt := range map[string]struct {
		during, between func(f *fleet[string]) (done func())
	}{
		"nobody leads since":  {nothing, nothing},
		"another leads since": {nothing, leadUntilDone},
		"another has ended since": {nothing, func(f *fleet[string]) func() {
			if _, _, err := f.groups[0].Do(context.Background(), "k", value); err != nil {
				f.t.Error(err)
			}
			return func() {}
		}},
		"another leads since the key was forgotten": {func(f *fleet[string]) func() {
			if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
				f.t.Error(err)
			}
			done := leadUntilDone(f)
			time.Sleep(50 * time.Millisecond) // by both clocks before the function's end
			return done
		}, nothing},
		"its lease had been renewed": {func(*fleet[string]) func() {
			time.Sleep(2 * ttl) // the first lease would have run out
			return func() {}
		}, nothing},
	} {
		t.Run(name, func(t *testing.T) { finishTwice(t, ttl, tt.during, tt.between) })
	}
}

// leadUntilDone lets the fleet's first replica lead a flight until done is called.
func leadUntilDone(f *fleet[string]) (done func()) {
	leads, end, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) {
			close(leads)
			<-end
			return "next", nil
		})
	}()
	<-leads
	return func() { close(end); <-ended }
}

// finishTwice lets a client send a flight's finish twice. during is called while
// the flight's function runs, and between after the first finish.
func finishTwice(t *testing.T, ttl time.Duration, during, between func(f *fleet[string]) (done func())) {
	t.Helper()
	f := newFleet[string](t, 1)
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	defer client.Close()
	repeated := make(chan error, 1)
	var done, doneBefore func()
	client.AddHook(twice{"finish", func() { done = between(f) }, repeated})
	w := &leases{}
	g := openCalm[string](t, client, distributed.WithHooks(w), distributed.WithLeaseTTL(ttl))
	eventually(t, "both know the time", func() bool { return f.asked("time") >= 2*4 })
	if _, role, err := g.Do(context.Background(), "k", func(context.Context) (string, error) {
		doneBefore = during(f)
		return "v", nil
	}); role != coalesce.Leader || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if err := <-repeated; err != nil {
		t.Error(err)
	}
	eventually(t, "the lease has been released", func() bool { return w.told(distributed.LeaseReleased) == 1 })
	done()
	doneBefore()
	if err := g.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if n := g.Stats().Distributed.LeaseLost; n != 0 || w.told(distributed.LeaseLost) != 0 {
		t.Errorf("%d leases lost", n)
	}
}

// twice is a hook that sends a script twice each time.
type twice struct {
	script   string
	between  func()       // before the second
	repeated chan<- error // is told how that ended
}

func (h twice) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h twice) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if scriptOf(cmd) == h.script {
			h.between()
			err = next(ctx, cmd)
			h.repeated <- err
		}
		return err
	}
}

func (h twice) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// leases counts what became of them.
type leases struct {
	mu sync.Mutex
	n  map[distributed.LeaseState]int
}

func (w *leases) Lease(l distributed.Lease) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n == nil {
		w.n = map[distributed.LeaseState]int{}
	}
	w.n[l.State]++
}

func (w *leases) told(state distributed.LeaseState) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n[state]
}
