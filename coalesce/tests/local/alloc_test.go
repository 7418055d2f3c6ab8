package local_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func answer(context.Context) (int, error) { return 42, nil }

func TestLoneCallerThatCannotLeaveAllocatesNothing(t *testing.T) {
	var g local.Group[string, int]
	ctx := context.Background()
	if n := testing.AllocsPerRun(2000, func() { g.Do(ctx, "key", answer) }); n > 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func TestALoneCallerThatCanLeaveAllocatesItsContextAlone(t *testing.T) {
	var g local.Group[string, int]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ctx.Done() // makes the caller's own channel, which the group need not pay for
	if n := testing.AllocsPerRun(2000, func() { g.Do(ctx, "key", answer) }); n > 1 {
		t.Errorf("%v allocations, want its context alone", n)
	}
}

// leaving is the context of a caller that leaves as soon as it waits. It lets
// one goroutine measure a whole visit to a flight.
type leaving struct{ done chan struct{} }

func newLeaving() context.Context {
	c := leaving{make(chan struct{})}
	close(c.done)
	return &c
}

func (*leaving) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *leaving) Done() <-chan struct{}     { return c.done }
func (*leaving) Err() error                  { return nil }
func (*leaving) Value(any) any               { return nil }

func TestFollowerThatJoinsAndLeavesAllocatesNothing(t *testing.T) {
	var g local.Group[string, int]
	release := make(chan struct{})
	leader := g.DoChan(context.Background(), "key", func(context.Context) (int, error) { <-release; return 42, nil })
	ctx := newLeaving()
	var roles [256]int
	n := testing.AllocsPerRun(2000, func() {
		_, role, _ := g.Do(ctx, "key", answer)
		roles[role]++
	})
	close(release)
	<-leader
	if n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	if followed := roles[coalesce.LocalFollower]; followed != 2001 {
		t.Errorf("%d of 2001 calls followed", followed)
	}
}

// TestFollowersAfterTheFirstAllocateNothing compares flights with one
// follower to flights with sixteen: the rest must come for free.
func TestFollowersAfterTheFirstAllocateNothing(t *testing.T) {
	perFlight := func(followers int) float64 {
		var g local.Group[string, int]
		ctx := context.Background()
		join, left := make(chan struct{}), make(chan struct{})
		for range followers {
			go func() {
				for range join {
					g.Do(ctx, "key", answer)
					left <- struct{}{}
				}
			}()
		}
		defer close(join)
		lead := func(context.Context) (int, error) {
			for range followers {
				join <- struct{}{}
			}
			for g.Stats().Waiting != int64(followers)+1 {
				runtime.Gosched()
			}
			return 42, nil
		}
		return testing.AllocsPerRun(500, func() {
			g.Do(ctx, "key", lead)
			for range followers {
				<-left
			}
		})
	}
	one, sixteen := perFlight(1), perFlight(16)
	if one > 2 {
		t.Errorf("%v allocations for a leader and its first follower, want at most the flight and its channel", one)
	}
	if sixteen > one {
		t.Errorf("%v allocations with 16 followers, %v with one", sixteen, one)
	}
}
