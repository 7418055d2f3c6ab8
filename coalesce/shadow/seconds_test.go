package shadow

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// dying is a transport that stops as if its process had been killed.
type dying struct {
	transport
	dead chan struct{}
}

func (d *dying) publish(ctx context.Context, report []byte) error {
	select {
	case <-d.dead:
		return nil
	default:
		return d.transport.publish(ctx, report)
	}
}

func TestSecondsWithoutTheReportOfAReplicaDoNotCountUntilItIsKnownToBeGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		one := h.open(t, everything)
		killed := &dying{h.join(), make(chan struct{})}
		other := open(everything, killed)
		defer func() { _ = other.Close(t.Context()) }()
		time.Sleep(10 * time.Second)
		before := one.Stats()
		if before.Replicas != 2 || before.Seconds.Silent != 0 || before.Seconds.Counted < 5 {
			t.Errorf("before: %+v", before)
		}
		close(killed.dead)
		time.Sleep(10 * time.Second)
		after := one.Stats()
		silent := after.Seconds.Silent
		if silent != goneAfter || after.Replicas != 1 || after.Seconds.Counted < before.Seconds.Counted+5 {
			t.Errorf("after: %+v; %d seconds were silent", after, silent)
		}
	})
}

func TestAReplicaThatLeavesIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		one, other := h.open(t, everything), open(everything, h.join())
		time.Sleep(10 * time.Second)
		if err := other.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Second)
		if st := one.Stats(); st.Seconds.Silent > 1 || st.Replicas != 1 {
			t.Errorf("%+v", st)
		}
	})
}

func TestSecondsInWhichReplicasFollowOtherKeysDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		one := h.open(t, settings{sample: 64})
		h.open(t, settings{sample: 32})
		time.Sleep(10 * time.Second)
		if st := one.Stats(); st.Seconds.Counted != 0 || st.Seconds.Differing < 5 {
			t.Errorf("%+v", st)
		}
	})
}

// broken is a Redis that does not answer.
type broken struct{}

func (broken) publish(ctx context.Context, _ []byte) error { <-ctx.Done(); return ctx.Err() }
func (broken) receive(ctx context.Context, _ func([]byte)) { <-ctx.Done() }
func (broken) time(ctx context.Context) (int64, error)     { <-ctx.Done(); return 0, ctx.Err() }

func TestWithoutAnAnswerOfRedisLocalIsKnownAndNothingOfDistributed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(everything, broken{})
		g := groupOf(t, f)
		begun := time.Now()
		for range 100 {
			if val, _, err := g.Do(t.Context(), "key", func(context.Context) (int, error) { return 1, nil }); val != 1 || err != nil {
				t.Fatalf("Do = %d, %v", val, err)
			}
		}
		if waited := time.Since(begun); waited != 0 { // the clock of a bubble stands still while somebody runs
			t.Errorf("the callers waited for %v", waited)
		}
		time.Sleep(10 * time.Second)
		st := g.Stats()
		if st.Requests != 100 || st.Local.Executions != 100 || st.Covered != 0 || st.Pending != 0 {
			t.Errorf("%+v", st)
		}
		if st.Distributed.Executions != 100 || st.Distributed.ExecutionsError != 100 {
			t.Errorf("of distributed it claims to know %+v", st.Distributed)
		}
		if seconds := f.Stats().Seconds; seconds.Counted != 0 || seconds.Unheard < 5 {
			t.Errorf("%+v", seconds)
		}
		if err := f.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestASecondWithMoreEventsThanAReportHoldsDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := fleetOf(t, 1, everything)[0]
		g := groupOf(t, f)
		time.Sleep(settleFor)
		for i := range maxEvents {
			_, _, _ = g.Do(t.Context(), fmt.Sprint(i), func(context.Context) (int, error) { return 1, nil })
		}
		time.Sleep(settleFor)
		before := f.Stats().Seconds
		if before.Partial < 2 { // the first, and this one
			t.Errorf("%+v", before)
		}
		if st := g.Stats(); st.Requests != maxEvents || st.Local.Executions != maxEvents {
			t.Errorf("local is not exact: %+v", st)
		}
	})
}

func TestTheHottestKeysAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fleets := fleetOf(t, 2, settings{sample: 64})
		a, b := groupOf(t, fleets[0]), groupOf(t, fleets[1])
		for second := range 8 {
			if second == 4 {
				for _, f := range fleets {
					f.ResetStats()
				}
			}
			for i := range 50 {
				time.Sleep(20 * time.Millisecond)
				for _, g := range []*Group[int]{a, b} {
					go func() {
						_, _, _ = g.Do(t.Context(), "hot", func(context.Context) (int, error) {
							time.Sleep(30 * time.Millisecond)
							return 1, nil
						})
						_, _, _ = g.Do(t.Context(), fmt.Sprint("cold ", second, i), func(context.Context) (int, error) { return 1, nil })
					}()
				}
			}
		}
		time.Sleep(settleFor)
		for _, f := range fleets {
			hottest := f.Stats().Hottest
			if len(hottest) == 0 || hottest[0].Key != "hot" || hottest[0].Group != "products" {
				t.Fatalf("%+v", hottest)
			}
			// A flight of 30 ms has two calls 20 ms apart here, and four in the fleet; of
			// the latter, one replica leads.
			k := hottest[0]
			if k.Requests < 190 || k.Requests > 210 || k.Local < 95 || k.Local > 105 {
				t.Errorf("%+v", k)
			}
		}
		sum := fleets[0].Stats().Hottest[0].Distributed + fleets[1].Stats().Hottest[0].Distributed
		if sum < 95 || sum > 105 {
			t.Errorf("distributed would have run %d; want about 100", sum)
		}
	})
}
