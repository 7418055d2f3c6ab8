package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	fleetReplicas = 3
	fleetCallers  = 100 // of each replica
	fleetFunction = 20 * time.Millisecond
)

// flightNumber makes every key new that is meant to be: the peers' results stay
// in Redis for a while.
var flightNumber atomic.Int64

// flights sends flight after flight through one kind of replicas.
type flights struct {
	peer     fleetPeer
	replicas []replica
	callers  int // of each replica
	function time.Duration
	payload  []byte

	number     int64
	waits      []time.Duration // of each caller, beyond the function
	executions int
	failed     atomic.Int64 // calls that ended with an error
}

func newFlights(addr string, peer fleetPeer, replicas, callers int, function time.Duration, payload []byte) *flights {
	f := &flights{peer: peer, callers: callers, function: function, payload: payload}
	for range replicas {
		f.replicas = append(f.replicas, peer.make(addr))
	}
	return f
}

func (f *flights) close() {
	for _, r := range f.replicas {
		r.close()
	}
}

func (f *flights) key() string {
	if f.peer.hot {
		return "hot"
	}
	return fmt.Sprintf("key-%d-", f.number)
}

// fly releases all callers of all replicas at once, and returns when all have
// the result. A caller's wait counts from that release.
func (f *flights) fly() {
	f.number = flightNumber.Add(1)
	key := f.key()
	ends := make([]time.Time, len(f.replicas)*f.callers)
	var ran atomic.Int64 // how long the first run of the function took
	var executions atomic.Int64
	fn := func(context.Context) ([]byte, error) {
		began := time.Now()
		time.Sleep(f.function) // the work that is shared
		executions.Add(1)
		ran.CompareAndSwap(0, int64(time.Since(began)))
		return f.payload, nil
	}
	release := make(chan struct{})
	var done, ready sync.WaitGroup
	ready.Add(len(ends))
	for i := range ends {
		done.Go(func() {
			ready.Done()
			<-release
			result, err := f.replicas[i%len(f.replicas)].do(context.Background(), key, fn)
			ends[i] = time.Now()
			if err != nil {
				f.failed.Add(1)
			} else if len(result) != len(f.payload) {
				must(fmt.Errorf("%s: a caller got %d bytes, not %d", f.peer.name, len(result), len(f.payload)))
			}
		})
	}
	ready.Wait()
	begin := time.Now()
	close(release)
	done.Wait()
	f.executions += int(executions.Load())
	for _, end := range ends {
		f.waits = append(f.waits, end.Sub(begin)-time.Duration(ran.Load()))
	}
}

// round flies n times and returns the callers' waits.
func (f *flights) round(n int) []time.Duration {
	f.waits = nil
	for range n {
		f.fly()
		time.Sleep(2 * time.Millisecond) // what a leader still has to send
	}
	return f.waits
}

// measureFleet fills the report's section on the second tier.
func measureFleet(b *bench) {
	addr, stop := startRedis()
	defer stop()
	s := b.section("fleet", "Distributed tier")
	cold := make(chan float64, 1)
	go func() { cold <- coldCommands(b.quick) }()

	measureBurstOfReplicas(b, s, addr)
	s.limit(coldTitle(b.quick), <-cold, map[bool]float64{true: 8, false: 10}[b.quick])
}

func coldTitle(quick bool) string {
	if quick {
		return "commands of a cold flight (no unsubscribe)"
	}
	return "commands of a flight, cold key (8, and 2 unsubscribes 30 s later)"
}

// coldCommands counts what one flight on a new key sends, at a Redis of its
// own: its followers' last command comes 30 s later.
func coldCommands(quick bool) float64 {
	addr, stop := startRedis()
	defer stop()
	f := newFlights(addr, fleetPeer{name: oursCold, make: newFleetcall}, fleetReplicas, fleetCallers, fleetFunction, make([]byte, 100))
	defer f.close()
	f.fly() // connects and loads the scripts
	time.Sleep(settle)
	m := startMonitor(addr)
	f.fly()
	if quick {
		time.Sleep(settle)
	} else {
		time.Sleep(33 * time.Second) // an idle channel is given up after 30 s
	}
	n := 0
	for _, command := range m.stop() {
		if !strings.EqualFold(command[0], "unsubscribe") {
			n++
			continue
		}
		// One command may leave several channels: this flight's counts.
		for _, channel := range command[1:] {
			if strings.Contains(channel, f.key()) {
				n++
			}
		}
	}
	return float64(n)
}

func measureBurstOfReplicas(b *bench, s *section, addr string) {
	perRound, rounds := 8, b.rounds(7)
	if b.quick {
		perRound = 3
	}
	payload := make([]byte, 100)
	var all []*flights
	commands := map[string]float64{}
	for _, peer := range append(fleetPeers(), floors()...) {
		f := newFlights(addr, peer, fleetReplicas, fleetCallers, fleetFunction, payload)
		defer f.close()
		f.round(2)
		commands[peer.name], _ = countCommands(addr, 5, f.fly)
		all = append(all, f)
	}
	p50, p99, flown := flyInTurn(all, rounds, perRound)
	t := table{
		Title:   fmt.Sprintf("%d replicas × %d callers, a function of %v", fleetReplicas, fleetCallers, fleetFunction),
		Columns: []string{"", "runs a flight", "commands a flight", "beyond the function, p50", "p99"},
	}
	for _, f := range all {
		name := f.peer.name
		if failed := f.failed.Load(); failed > 0 {
			t.Note += fmt.Sprintf("%s: %s calls failed. ", name, thousands(int(failed)))
		}
		runs := float64(f.executions) / float64(flown[name])
		sent := count(commands[name])
		if name == oursCold {
			sent += fmt.Sprintf(" + %d", fleetReplicas-1) // the unsubscribes, which come when nobody counts any more
		}
		t.add(name, count(runs), sent, milliseconds(median(p50[name])), milliseconds(median(p99[name])))
	}
	best50, best99 := bestPeers(all, p50), bestPeers(all, p99)
	t.Note += fmt.Sprintf("Half of what the best pair behind x/sync waits is %s (p50) and %s (p99); a floor, %s, waits %s and %s.",
		milliseconds(median(p50[best50[false]])/2), milliseconds(median(p99[best99[false]])/2),
		bareFloor, milliseconds(median(p50[bareFloor])), milliseconds(median(p99[bareFloor])))
	s.Tables = append(s.Tables, t)
	for _, asItComes := range []bool{true, false} {
		for _, name := range []string{oursHot, oursCold} {
			key := strings.TrimPrefix(name, "fleetcall, ")
			peer50, peer99 := best50[asItComes], best99[asItComes]
			s.ratio("wait beyond the function, p50, "+key, median(p50[name]), median(p50[peer50]), peer50, 0.5, false, milliseconds)
			s.ratio("wait beyond the function, p99, "+key, median(p99[name]), median(p99[peer99]), peer99, 0.5, false, milliseconds)
		}
	}
	s.ratio("wait beyond the function, p50, hot key", median(p50[oursHot]), median(p50[bareFloor]), "floor: "+bareFloor, 1.15, false, milliseconds)
	s.limit("commands of a flight, hot key", commands[oursHot], 4)
}

// flyInTurn has each peer make its flights, round after round. It returns the waits'
// quantiles, one of each round, and how many flights there were, by the peers' names.
func flyInTurn(all []*flights, rounds, perRound int) (p50, p99 map[string][]float64, flown map[string]int) {
	p50, p99, flown = map[string][]float64{}, map[string][]float64{}, map[string]int{}
	for _, f := range all {
		f.executions = 0
	}
	for round := range rounds {
		for i := range all {
			f := all[(i+round)%len(all)]
			n := perRound
			if f.peer.asItComes {
				n = (perRound + 3) / 4 // their flights are long
			}
			waits := f.round(n)
			flown[f.peer.name] += n
			p50[f.peer.name] = append(p50[f.peer.name], float64(quantile(waits, 0.5)))
			p99[f.peer.name] = append(p99[f.peer.name], float64(quantile(waits, 0.99)))
		}
	}
	return p50, p99, flown
}

// bestPeers names the peer that waits the least of those as they come (true), and of
// those behind x/sync (false).
func bestPeers(all []*flights, waits map[string][]float64) map[bool]string {
	best := map[bool]string{}
	for _, f := range all {
		name, kind := f.peer.name, f.peer.asItComes
		if strings.HasPrefix(name, "fleetcall") || f.peer.floor {
			continue
		}
		if best[kind] == "" || median(waits[name]) < median(waits[best[kind]]) {
			best[kind] = name
		}
	}
	return best
}
