package coalescetest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
)

var errSold = errors.New("sold out")

// asked is a call of DoMany whose function notes what it is given.
type asked struct {
	given   chan []string
	results map[string]coalesce.Result[product]
	err     error
	done    chan struct{}
}

func askMany(ctx context.Context, g coalesce.Group[product], keys ...string) *asked {
	a := &asked{given: make(chan []string, 10), done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.results, a.err = g.DoMany(ctx, keys, func(_ context.Context, keys []string) (map[string]product, error) {
			a.given <- slices.Clone(keys)
			found := map[string]product{}
			for _, key := range keys {
				found[key] = product{Name: "own " + key}
			}
			return found, nil
		})
	}()
	return a
}

func (a *asked) mustBe(t *testing.T, want ...string) {
	t.Helper()
	<-a.done
	var got []string
	for key, r := range a.results {
		name := r.Val.Name
		if name != "" {
			name += " "
		}
		got = append(got, fmt.Sprintf("%s: %sas %s, %v", key, name, r.Role, r.Err))
	}
	slices.Sort(got)
	if !slices.Equal(got, want) || a.err != nil {
		t.Errorf("got %q, %v, want %q", got, a.err, want)
	}
}

func TestBatchHasEachKeyAsTheFleetHasIt(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		other := a.LeadElsewhere("led")
		fails := a.LeadElsewhere("fails")
		panics := a.LeadElsewhere("panics")
		a.Cache("cached", product{Name: "kept", note: "lost"})
		a.Poison("poisoned")
		call := askMany(t.Context(), b, "led", "cached", "poisoned", "mine", "fails", "panics")
		if given := <-call.given; !slices.Equal(given, []string{"mine"}) {
			t.Errorf("its function was given %q", given)
		}
		for _, l := range []*coalescetest.Leader[product]{other, fails, panics} {
			l.Await(1)
		}
		other.Return(product{Name: "other", note: "lost"}, nil)
		fails.Return(product{}, errSold)
		panics.Panic("boom")
		call.mustBe(t, "cached: kept as cached, <nil>", "fails: as remote-follower, "+errSold.Error(), "led: other as remote-follower, <nil>",
			"mine: own mine as leader, <nil>", "panics: as remote-follower, "+coalesce.ErrRemotePanic.Error()+": boom", "poisoned: as none, "+coalesce.ErrPoisoned.Error())
	})
}

// A replica that dies leaves several keys: each batch takes over with one call of its
// function for what it finds at that moment, and one for the rest at the most.
func TestBatchTakesOverFromALeaderThatDies(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		one, two := a.LeadElsewhere("1"), a.LeadElsewhere("2")
		call := askMany(t.Context(), b, "1", "2")
		one.Await(1)
		two.Await(1)
		one.Die()
		if given := <-call.given; !slices.Equal(given, []string{"1"}) {
			t.Errorf("its function was given %q", given)
		}
		two.Die()
		call.mustBe(t, "1: own 1 as leader, <nil>", "2: own 2 as leader, <nil>")
	})
}

// An abandoned batch ends all its flights at once: who followed takes them together.
func TestAbandonedBatchIsTakenOverWithOneCall(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		began, abandon := make(chan struct{}), make(chan struct{})
		gone := make(chan error, 1)
		go func() {
			results, _ := a.DoMany(t.Context(), []string{"1", "2", "3"}, func(context.Context, []string) (map[string]product, error) {
				close(began)
				<-abandon
				return nil, context.Canceled
			})
			gone <- results["2"].Err
		}()
		<-began
		call := askMany(t.Context(), b, "3", "2", "1")
		for b.Waiting() != 3 {
			time.Sleep(time.Millisecond) // no event announces it
		}
		close(abandon)
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who abandoned got %v", err)
		}
		if given := <-call.given; !slices.Equal(given, []string{"1", "2", "3"}) {
			t.Errorf("its function was given %q at first", given)
		}
		call.mustBe(t, "1: own 1 as leader, <nil>", "2: own 2 as leader, <nil>", "3: own 3 as leader, <nil>")
	})
}

func TestBatchWithoutRedisFallsBackOrFails(t *testing.T) {
	inFleet(t, func(t *testing.T, fleet *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		closed := coalescetest.NewGroup[product](fleet, "products", coalescetest.AllowLossy(), coalescetest.FailClosed())
		other := a.LeadElsewhere("led")
		call, fails := askMany(t.Context(), b, "led"), askMany(t.Context(), closed, "led", "mine")
		other.Await(2)
		<-fails.given // "mine", which goes on
		fleet.StopRedis()
		call.mustBe(t, "led: own led as fallback, <nil>")
		fails.mustBe(t, "led: as none, "+coalesce.ErrUnavailable.Error(), "mine: own mine as leader, <nil>")
		down := askMany(t.Context(), b, "1", "2")
		if given := <-down.given; !slices.Equal(given, []string{"1", "2"}) {
			t.Errorf("its function was given %q", given)
		}
		down.mustBe(t, "1: own 1 as fallback, <nil>", "2: own 2 as fallback, <nil>")
		askMany(t.Context(), closed, "1").mustBe(t, "1: as none, "+coalesce.ErrUnavailable.Error())
	})
}

// A batch that has left leaves nothing behind, though the flight that it followed goes on.
func TestBatchThatLeavesIsGoneFromTheFleet(t *testing.T) {
	inFleet(t, func(t *testing.T, _ *coalescetest.Fleet, a, b *coalescetest.Group[product]) {
		other := a.LeadElsewhere("led")
		ctx, leave := context.WithCancel(t.Context())
		call := askMany(ctx, b, "led")
		other.Await(1)
		leave()
		<-call.done
		if r := call.results["led"]; call.err != context.Canceled || r.Role != coalesce.RemoteFollower || r.Err != context.Canceled {
			t.Errorf("got %+v, %v", call.results, call.err)
		}
		for b.Waiting() != 0 {
			time.Sleep(time.Millisecond) // no event announces it
		}
		other.Return(product{Name: "for nobody"}, nil)
	})
}
