package distributed_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

func TestForgettingAKeyAgainAndAgainDoesNotPoisonIt(t *testing.T) {
	f := newFleet[string](t, 1)
	release := make(chan struct{})
	var flights sync.WaitGroup
	for i := range 6 {
		started := make(chan struct{})
		ended := make(chan error, 1)
		flights.Go(func() {
			_, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) {
				close(started)
				<-release
				return "v", nil
			})
			ended <- err
		})
		select {
		case <-started:
		case err := <-ended:
			t.Errorf("flight %d: %v", i, err)
		}
		if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	flights.Wait()
}

func TestAForgottenFunctionIsCancelledWhenItsCallersLeave(t *testing.T) {
	f := newFleet[string](t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	started, cancelled := make(chan struct{}), make(chan struct{})
	go f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	})
	<-started
	if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("the function runs on for nobody")
	}
}

func TestForgetStartsANewFlightOnEveryReplicaAndLeavesTheOldOneToItsCallers(t *testing.T) {
	t.Parallel()
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(300*time.Millisecond))
	release := make(chan struct{})
	var old sync.WaitGroup
	answers := make([]answer[string], 2)
	for i, g := range f.groups {
		old.Go(func() {
			a := &answers[i]
			a.val, a.role, a.err = g.Do(context.Background(), "k", func(context.Context) (string, error) {
				<-release
				return "old", nil
			})
		})
	}
	f.waitFollowers("k", 1)
	if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	fresh := func(context.Context) (string, error) { return "new", nil }
	if v, role, err := f.groups[0].Do(context.Background(), "k", fresh); v != "new" || role != coalesce.Leader || err != nil {
		t.Errorf("on the replica that forgot: %q %v %v", v, role, err)
	}
	eventually(t, "the other replica has the notice", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		v, _, err := f.groups[1].Do(ctx, "k", fresh)
		return err == nil && v == "new"
	})
	time.Sleep(time.Second) // the old flight outlives its lease: it must be renewed, forgotten as it is
	close(release)
	old.Wait()
	for _, a := range answers {
		if a.val != "old" || a.err != nil {
			t.Errorf("a caller of the old flight: %+v", a)
		}
	}
	for i, g := range f.groups {
		if s := g.Stats().Distributed; s.LeaseLost != 0 || s.Takeovers != 0 {
			t.Errorf("replica %d: %+v", i, s)
		}
	}
}
