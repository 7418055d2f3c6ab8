package distributed_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// TestAfterForgetNobodyReadsWhatWasThereBefore writes, forgets and reads, again
// and again, while callers on every replica read all the time. It logs what the
// other replicas saw before the notice arrived.
func TestAfterForgetNobodyReadsWhatWasThereBefore(t *testing.T) {
	t.Parallel()
	const replicas, readers = 3, 50
	rounds := 100
	switch {
	case *full:
		rounds = 1000
	case testing.Short():
		rounds = 20
	}
	f := newFleet[int64](t, replicas)
	var row atomic.Int64 // what the function reads, in the database's place
	read := func(context.Context) (int64, error) {
		v := row.Load()
		way := 2 * time.Millisecond
		if rand.IntN(10) == 0 {
			way = 20 * time.Millisecond // some flights outlast the notice
		}
		time.Sleep(rand.N(way)) // the answer's
		return v, nil
	}
	readings := make([][]reading, replicas*readers)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range readings {
		wg.Go(func() {
			for !stop.Load() {
				time.Sleep(rand.N(2 * time.Millisecond)) // so that some come at every moment
				r := reading{replica: i % replicas, arrived: time.Now()}
				var err error
				if r.value, _, err = f.groups[r.replica].Do(context.Background(), "k", read); err != nil {
					t.Error(err)
				}
				readings[i] = append(readings[i], r)
			}
		})
	}
	forgets := forgetTimes{make([]time.Time, rounds+1), make([]time.Time, rounds+1)}
	for v := int64(1); v <= int64(rounds); v++ {
		row.Store(v)
		if err := f.groups[v%replicas].Forget(context.Background(), "k"); err != nil {
			t.Fatal(err)
		}
		forgets.returned[v] = time.Now()
		f.garbageEverywhere()
		forgets.everywhere[v] = time.Now()
		time.Sleep(rand.N(3 * time.Millisecond)) // the load goes on
	}
	stop.Store(true)
	wg.Wait()
	forgets.check(t, slices.Concat(readings...), replicas)
}

// reading is a value that a caller read on a replica.
type reading struct {
	replica int
	arrived time.Time
	value   int64
}

// forgetTimes has the times of each Forget, by the value that was written before it.
type forgetTimes struct {
	returned   []time.Time
	everywhere []time.Time // when every replica had handled a message that was sent after it
}

// check fails the test if a reading came after a Forget and has an older value. On
// other replicas than the one that forgot, that is right until the notice arrives;
// check logs for how long that was.
func (f forgetTimes) check(t *testing.T, readings []reading, replicas int) {
	t.Helper()
	rounds := len(f.returned) - 1
	window := make([]time.Duration, rounds+1) // after Forget, until the last old reading of another replica began
	old := 0
	for _, r := range readings {
		for v := r.value + 1; v <= int64(rounds) && !r.arrived.Before(f.returned[v]); v++ {
			if r.replica == int(v)%replicas {
				t.Errorf("a caller of the replica that forgot came %v after Forget and got what was there before", r.arrived.Sub(f.returned[v]))
			}
			if r.arrived.After(f.everywhere[v]) {
				t.Errorf("a caller of another replica came after the notice and got what was there before")
			}
			old++
			window[v] = max(window[v], r.arrived.Sub(f.returned[v]))
		}
	}
	if len(readings) < rounds {
		t.Errorf("only %d readings", len(readings))
	}
	window = slices.DeleteFunc(window, func(d time.Duration) bool { return d == 0 })
	t.Logf("%d rounds, %d readings; rounds in which other replicas saw the old value after Forget had returned: %d, in %d readings", rounds, len(readings), len(window), old)
	if n := len(window); n > 0 {
		slices.Sort(window)
		t.Logf("in those rounds, from Forget's return until the last old reading began: %v (median), %v (p99), %v (most)", window[n/2], window[n*99/100], window[n-1])
	}
}

// TestALocalFollowerOfAFlightThatHadEndedHasOneFlightTimeoutInAll lets a caller
// come when the flight that its replica follows has ended unnoticed.
func TestALocalFollowerOfAFlightThatHadEndedHasOneFlightTimeoutInAll(t *testing.T) {
	const flightTimeout = 20 * time.Second
	for _, test := range []struct {
		name    string
		outcome func() string
		maxAge  time.Duration
		anew    bool
	}{
		{"a value", foreignValue, 0, true},
		{"a value within MaxAge", foreignValue, time.Hour, false},
		{"an error", foreignError, 0, true},
		{"an error within MaxAge", foreignError, time.Hour, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFleet[string](t, 1, distributed.WithFlightTimeout(flightTimeout), distributed.WithMaxAge(test.maxAge))
			g, client, ctx := f.groups[0], f.client(), context.Background()
			f.foreignLease("k", time.Minute)
			var deadline time.Time
			own := func(ctx context.Context) (string, error) {
				deadline, _ = ctx.Deadline()
				return "own", nil
			}
			do := func() <-chan answer[string] {
				answers := make(chan answer[string], 1)
				go func() {
					var a answer[string]
					a.val, a.role, a.err = g.Do(ctx, "k", own)
					answers <- a
				}()
				return answers
			}
			first := do()
			f.waitFollowers("k", 1)
			client.Set(ctx, "fleetcall:test:{k}:result:"+foreignFlight, test.outcome(), 0)
			client.Del(ctx, "fleetcall:test:{k}:lease")
			late := do()
			eventually(t, "the late caller waits for the first one's flight", func() bool { return g.Stats().Local.Waiting == 2 })
			came := time.Now()
			client.Publish(ctx, "fleetcall:test:{k}@0", "garbage") // has it look
			if a := <-first; a.role != coalesce.RemoteFollower {
				t.Errorf("the first caller: %+v", a)
			}
			a := <-late
			if !test.anew {
				if a.val != "theirs" || a.role != coalesce.LocalFollower || a.err != nil {
					t.Errorf("the late caller: %+v", a)
				}
				return
			}
			if a.val != "own" || a.role != coalesce.Leader || a.err != nil {
				t.Errorf("the late caller: %+v", a)
			}
			if over := deadline.Sub(came.Add(flightTimeout)); over > 0 {
				t.Errorf("its function may run for %v longer than it may wait", over)
			}
		})
	}
}

// foreignValue and foreignError are outcomes as the replica that led foreignFlight would
// send them, whose function ends now.
func foreignValue() string { return foreignOutcome("json", `"theirs"`) }

func foreignError() string {
	o := wire.ErrorOutcome(wire.KindError, foreignFlight, errors.New("refused"), 1<<20)
	o.Finished = redisTime()
	return string(o.Encode())
}

// garbageEverywhere returns when every replica has handled a message that was
// published on the control channels after it was called.
func (f *fleet[V]) garbageEverywhere() {
	f.t.Helper()
	handled := func() (n uint64) {
		for _, g := range f.groups {
			n += g.Stats().Distributed.Garbage
		}
		return n
	}
	want := handled() + uint64(len(f.groups))
	client := f.client()
	for _, channel := range controlChannels("fleetcall", client) {
		if err := client.Publish(context.Background(), channel, "garbage").Err(); err != nil {
			f.t.Fatal(err)
		}
	}
	eventually(f.t, "every replica has the message", func() bool { return handled() >= want })
}

// TestAForgottenFlightThatEndsDoesNotSplitTheNext has callers of one process: those who
// come while the second flight runs are its local followers.
func TestAForgottenFlightThatEndsDoesNotSplitTheNext(t *testing.T) {
	f := newFleet[string](t, 1)
	g, ctx := f.groups[0], context.Background()
	lead := func(result string) (began, release chan struct{}, done chan answer[string]) {
		began, release, done = make(chan struct{}), make(chan struct{}), make(chan answer[string], 1)
		go func() {
			var a answer[string]
			a.val, a.role, a.err = g.Do(ctx, "k", func(context.Context) (string, error) {
				close(began)
				<-release
				return result, nil
			})
			done <- a
		}()
		<-began
		return began, release, done
	}
	_, releaseFirst, first := lead("first")
	if err := g.Forget(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	_, releaseSecond, second := lead("second")
	close(releaseFirst)
	<-first
	third := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(ctx, "k", value)
		third <- a
	}()
	eventually(t, "two wait", func() bool { return g.Stats().Local.Waiting == 2 })
	close(releaseSecond)
	if a := <-second; a.val != "second" || a.role != coalesce.Leader {
		t.Errorf("the second: %+v", a)
	}
	if a := <-third; a.val != "second" || a.role != coalesce.LocalFollower {
		t.Errorf("the third: %+v", a)
	}
}
