package main

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	singleflightx "github.com/samber/go-singleflightx"
	"github.com/viccon/sturdyc"
	"golang.org/x/sync/singleflight"
	resenje "resenje.org/singleflight"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

const (
	ours    = "fleetcall local"
	xsync   = "x/sync/singleflight"
	samber  = "samber/go-singleflightx"
	cancels = "resenje.org/singleflight"
	sturdy  = "viccon/sturdyc"
	channel = "one closed channel"
)

// localKeys are as many as a busy replica may have in flight.
var localKeys = func() []string {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%d", i)
	}
	return keys
}()

// job is one function in the forms that the libraries want it in.
type job struct {
	plain   func() (int, error)
	boxed   func() (any, error)
	context func(context.Context) (int, error)
}

func newJob(fn func() (int, error)) job {
	return job{
		plain:   fn,
		boxed:   func() (any, error) { return fn() },
		context: func(context.Context) (int, error) { return fn() },
	}
}

// empty captures nothing, so that what is allocated is the library's.
var empty = newJob(func() (int, error) { return 42, nil })

// doLocal calls a job for key through one library.
type doLocal func(key string, j job) int

// localGroups makes a new group of each library. Those of the first list take
// no context, or one that never ends; those of the second have callers that
// can leave.
func localGroups() (staying, leaving map[string]doLocal) {
	forever := context.Background()
	ctx, cancel := context.WithCancel(context.Background())
	_ = cancel // never called: the callers could leave, but don't
	ctx.Done() // makes the channel, which no group need pay for

	var own, ownLeaving local.Group[string, int]
	var xs singleflight.Group
	var sx singleflightx.Group[string, int]
	var res resenje.Group[string, int]
	cache := sturdyc.New[int](10_000, 64, time.Hour, 10)
	staying = map[string]doLocal{
		ours: func(key string, j job) int {
			v, _, _ := own.Do(forever, key, j.context)
			return v
		},
		xsync: func(key string, j job) int {
			v, _, _ := xs.Do(key, j.boxed)
			return v.(int)
		},
		samber: func(key string, j job) int {
			v, _, _ := sx.Do(key, j.plain)
			return v
		},
		sturdy: func(key string, j job) int {
			v, _ := cache.GetOrFetch(forever, key, j.context)
			cache.Delete(key) // it is a cache: the next call is to run its function too
			return v
		},
	}
	leaving = map[string]doLocal{
		ours: func(key string, j job) int {
			v, _, _ := ownLeaving.Do(ctx, key, j.context)
			return v
		},
		cancels: func(key string, j job) int {
			v, _, _ := res.Do(ctx, key, j.context)
			return v
		},
	}
	return staying, leaving
}

// closedChannel merges the calls of one burst, and does nothing else.
func closedChannel() doLocal {
	var led atomic.Bool
	var val int
	done := make(chan struct{})
	return func(_ string, j job) int {
		if led.CompareAndSwap(false, true) {
			val, _ = j.plain()
			close(done)
		}
		<-done
		return val
	}
}

// measureLocal fills the report's section on the first tier.
func measureLocal(b *bench) {
	serialOps, bursts := 200_000, []int{1_000, 100_000}
	if b.quick {
		serialOps, bursts = 20_000, []int{1_000}
	}
	staying, leaving := localGroups()
	t := table{
		Title:   "One process, different keys",
		Columns: []string{"library", "callers can leave", "serial ns", "allocations", "two cores ns"},
	}

	serial := interleave(b.rounds(9), contend(staying, func(do doLocal) float64 { return serially(do, serialOps) }))
	parallel := interleave(b.rounds(9), contend(staying, func(do doLocal) float64 { return onAllCores(do, serialOps) }))
	serialLeaving := interleave(b.rounds(9), contend(leaving, func(do doLocal) float64 { return serially(do, serialOps/4) }))
	parallelLeaving := interleave(b.rounds(9), contend(leaving, func(do doLocal) float64 { return onAllCores(do, serialOps/4) }))
	for _, name := range []string{ours, xsync, samber, sturdy} {
		t.add(name, "no", ns(serial[name]), count(allocations(staying[name])), ns(parallel[name]))
	}
	for _, name := range []string{ours, cancels} {
		t.add(name, "yes", ns(serialLeaving[name]), count(allocations(leaving[name])), ns(parallelLeaving[name]))
	}

	s := b.section("local", "Local tier")
	s.atMost("different keys, serial", serial, ours, xsync, 1.1, ns)
	s.limit("  its allocations", allocations(staying[ours]), 1)
	s.atMost("different keys, two cores", parallel, ours, xsync, 0.7, ns)
	s.atMost("different keys, callers can leave", serialLeaving, ours, cancels, 0.5, ns)
	s.limit("  its allocations", allocations(leaving[ours]), 3)

	burstTable := table{
		Title:   "One process, one key: from the release of a herd of callers until all have returned",
		Columns: []string{"library"},
	}
	times := make([]map[string]float64, len(bursts))
	for i, n := range bursts {
		burstTable.Columns = append(burstTable.Columns, fmt.Sprintf("%s callers", thousands(n)))
		all := contend(staying, func(do doLocal) float64 { return burst(do, n) })
		all = append(all, contender{cancels, func() float64 { return burst(leaving[cancels], n) }})
		all = append(all, contender{ours + " (can leave)", func() float64 { return burst(leaving[ours], n) }})
		all = append(all, contender{channel, func() float64 { return burst(closedChannel(), n) }})
		rounds := 51
		if n > 10_000 {
			rounds = 11
		}
		times[i] = interleave(b.rounds(rounds), all)
		s.atMost(fmt.Sprintf("herd of %s on one key", thousands(n)), times[i], ours, xsync, 1, milliseconds)
	}
	for _, name := range []string{ours, ours + " (can leave)", xsync, samber, cancels, sturdy, channel} {
		row := []string{name}
		for i := range bursts {
			row = append(row, milliseconds(times[i][name]))
		}
		burstTable.add(row...)
	}
	s.limit("allocations of a follower", followerAllocations(), 0)
	s.Tables = append(s.Tables, t, burstTable)
	measureLocalBatches(b, s)
}

func contend(groups map[string]doLocal, round func(doLocal) float64) []contender {
	var all []contender
	for name, do := range groups {
		all = append(all, contender{name, func() float64 { return round(do) }})
	}
	return all
}

func serially(do doLocal, n int) float64 {
	return perOperation(n, func() {
		for i := range n {
			do(localKeys[i%len(localKeys)], empty)
		}
	})
}

// onAllCores shares n operations among as many goroutines as there are cores,
// each with keys of its own, and returns the wall clock's time for one.
func onAllCores(do doLocal, n int) float64 {
	cores := runtime.GOMAXPROCS(0)
	each := len(localKeys) / cores
	return perOperation(n, func() {
		var wg sync.WaitGroup
		for core := range cores {
			wg.Go(func() {
				keys := localKeys[core*each : (core+1)*each]
				for i := range n / cores {
					do(keys[i%each], empty)
				}
			})
		}
		wg.Wait()
	})
}

// burst releases n callers of one key at once and returns the nanoseconds until
// all have returned. The function ends 1 ms after the last has set out.
func burst(do doLocal, n int) float64 {
	var setOut atomic.Int64
	release, gathered := make(chan struct{}), make(chan struct{})
	fn := newJob(func() (int, error) {
		<-gathered
		time.Sleep(time.Millisecond) // the work that is shared
		return 42, nil
	})
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(n)
	for range n {
		wg.Go(func() {
			ready.Done()
			<-release
			if setOut.Add(1) == int64(n) {
				close(gathered)
			}
			do("hot", fn)
		})
	}
	ready.Wait()
	return perOperation(1, func() {
		close(release)
		wg.Wait()
	})
}

func allocations(do doLocal) float64 {
	i := 0
	return testing.AllocsPerRun(2000, func() {
		do(localKeys[i%len(localKeys)], empty)
		i++
	})
}

// left is the context of a caller that leaves as soon as it waits, so that one
// goroutine can measure a whole visit to a flight.
type left struct{ done chan struct{} }

func (*left) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *left) Done() <-chan struct{}     { return c.done }
func (*left) Err() error                  { return nil }
func (*left) Value(any) any               { return nil }

func followerAllocations() float64 {
	var g local.Group[string, int]
	release := make(chan struct{})
	leader := g.DoChan(context.Background(), "hot", func(context.Context) (int, error) { <-release; return 42, nil })
	ctx := &left{make(chan struct{})}
	close(ctx.done)
	n := testing.AllocsPerRun(2000, func() {
		_, _, _ = g.Do(ctx, "hot", func(context.Context) (int, error) { return 42, nil })
	})
	close(release)
	<-leader
	return n
}
