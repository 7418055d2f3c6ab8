package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

const (
	zipfKeys = 100_000
	zipfRate = 1000 // calls a second, in the whole fleet
)

// adaptiveFleet is three replicas and a Redis of their own.
type adaptiveFleet struct {
	addr       string
	groups     []*distributed.Group[[]byte]
	close      func()
	executions atomic.Int64
}

// startAdaptive returns replicas that hear each other: a flight asks nobody only if its replica
// hears what others forget.
func startAdaptive(options ...distributed.Option) *adaptiveFleet {
	addr, stopRedis := startRedis()
	f := &adaptiveFleet{addr: addr}
	stops := []func(){stopRedis}
	for range fleetReplicas {
		group, stop := newGroup(addr, options...)
		f.groups = append(f.groups, group)
		stops = append(stops, stop)
	}
	f.close = func() {
		for i := range stops {
			stops[len(stops)-1-i]()
		}
	}
	time.Sleep(2 * time.Second) // until each has counted the others
	return f
}

func (f *adaptiveFleet) call(replica int, key string, takes time.Duration) {
	_, _, err := f.groups[replica].Do(context.Background(), key, func(context.Context) ([]byte, error) {
		f.executions.Add(1)
		time.Sleep(takes) // as long as the query would take
		return nil, nil
	})
	must(err)
}

// count returns the commands that clients send, and the executions, while do runs.
func (f *adaptiveFleet) count(do func()) (commands, executions float64) {
	before := f.executions.Load()
	m := startMonitor(f.addr)
	do()
	time.Sleep(settle) // until MONITOR has shown the commands that come after the last result
	for _, command := range m.stop() {
		if !strings.EqualFold(command[0], "time") { // of a connection
			commands++
		}
	}
	return commands, float64(f.executions.Load() - before)
}

// zipf calls for keys of which the r-th is called for 1/r times as often as the first, on any
// replica, independently of each other.
func (f *adaptiveFleet) zipf(lasting time.Duration) {
	sums, sum := make([]float64, zipfKeys), 0.0
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	r := rand.New(rand.NewPCG(15, 2))
	var calls sync.WaitGroup
	for began, at := time.Now(), time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() / zipfRate * float64(time.Second))
		if at > lasting {
			break
		}
		time.Sleep(at - time.Since(began)) // calls come at times that were drawn before
		replica, key := r.IntN(fleetReplicas), fmt.Sprint("zipf-", sort.SearchFloat64s(sums, r.Float64()*sum))
		calls.Go(func() { f.call(replica, key, fleetFunction) })
	}
	calls.Wait()
}

// crowd has many callers on each replica call for a key at once, and returns the executions.
func (f *adaptiveFleet) crowd(key string) float64 {
	before := f.executions.Load()
	release := make(chan struct{})
	var calls sync.WaitGroup
	for i := range fleetReplicas * fleetCallers {
		calls.Go(func() {
			<-release
			f.call(i%fleetReplicas, key, fleetFunction)
		})
	}
	close(release)
	calls.Wait()
	return float64(f.executions.Load() - before)
}

// measureAdaptive compares groups that ask Redis for shared keys alone to those that always
// ask.
func measureAdaptive(b *bench) {
	s := b.section("adaptive", "Adaptive groups")
	lasting := time.Minute
	if b.quick {
		lasting = 5 * time.Second
	}
	always, adaptive := startAdaptive(), startAdaptive(distributed.WithAdaptive())
	defer always.close()
	defer adaptive.close()

	commands, executions := map[string]float64{}, map[string]float64{}
	t := table{
		Title:   fmt.Sprintf("Zipf(1.0) over %s keys, %d replicas, functions of %v, %d calls a second", thousands(zipfKeys), fleetReplicas, fleetFunction, zipfRate),
		Columns: []string{"", "commands", "executions"},
		Note:    "Counted from the first call on, when nothing is known of any key.",
	}
	for name, f := range map[string]*adaptiveFleet{"always": always, "adaptive": adaptive} {
		commands[name], executions[name] = f.count(func() { f.zipf(lasting) })
	}
	for _, name := range []string{"always", "adaptive"} {
		t.add(map[string]string{"always": "every flight asks", "adaptive": "adaptive"}[name], thousands(int(commands[name])), thousands(int(executions[name])))
	}
	s.Tables = append(s.Tables, t)
	s.within("Zipf(1.0): commands, beside a group that always asks", commands["adaptive"]/commands["always"], 0.2, thousandths)
	s.within("Zipf(1.0): executions, beside a group that always asks", executions["adaptive"]/executions["always"], 1.02, thousandths)

	first, then := 0.0, 0.0
	for round := range b.rounds(15) {
		key := fmt.Sprint("crowd-", round)
		first = max(first, adaptive.crowd(key))
		then = max(then, adaptive.crowd(key))
	}
	s.limit("a cold key that 300 call at once: executions, the most of all rounds", first, fleetReplicas)
	s.limit("the same key again: executions, the most of all rounds", then, 1)

	s.within("different keys only: commands for a flight", adaptive.different(), 0.02, thousandths)

	waits := interleave(b.rounds(15), []contender{{"adaptive", adaptive.loneWait}, {"always", always.loneWait}})
	s.ratio("a lone caller for a key that nobody shares waits", waits["adaptive"], waits["always"], "a group that always asks", 0.5, false, microseconds)
}

// loneWait returns what a caller waits for a key that is new, and whose function does nothing.
func (f *adaptiveFleet) loneWait() float64 {
	waits := make([]float64, 500)
	for i := range waits {
		key := fmt.Sprint("lone-", flightNumber.Add(1))
		began := time.Now()
		_, _, err := f.groups[0].Do(context.Background(), key, nothing)
		must(err)
		waits[i] = float64(time.Since(began))
	}
	return median(waits)
}

// different returns the commands for a flight where each key comes once.
func (f *adaptiveFleet) different() float64 {
	const workers, each = 50, 100
	sent, _ := f.count(func() {
		var calls sync.WaitGroup
		for worker := range workers {
			calls.Go(func() {
				for i := range each {
					f.call(worker%fleetReplicas, fmt.Sprintf("different-%d-%d", worker, i), time.Millisecond)
				}
			})
		}
		calls.Wait()
	})
	return sent / (workers * each)
}
