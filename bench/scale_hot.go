package main

import (
	"fmt"
	"time"
)

// hotCallers are those of each replica that want a hot key.
const hotCallers = 5

// measureHotKey has all replicas of larger and larger fleets want one key, beside the least
// that a replica has to send: one SET NX, and one PUBLISH that goes to each.
func measureHotKey(b *bench, s *section) {
	t := table{
		Title:   fmt.Sprintf("Hot key: one flight, %d callers of each replica, 100 bytes, a function of %v", hotCallers, fleetFunction),
		Columns: []string{"replicas", "runs a flight", "Redis' CPU", "of one SET NX and one PUBLISH", "ratio", "bytes through Redis"},
	}
	var xs, ours, bare []float64
	sizes := []int{max(b.replicas/8, 1), max(b.replicas/4, 1), max(b.replicas/2, 1), b.replicas}
	for i, replicas := range sizes {
		hot, floor, runs, through := hotKey(b, replicas)
		xs, ours, bare = append(xs, float64(replicas)), append(ours, hot), append(bare, floor)
		t.add(thousands(replicas), count(runs), microseconds(hot), microseconds(floor), fmt.Sprintf("%.2f", hot/floor), size(through))
		if i == len(sizes)-1 {
			s.limit(fmt.Sprintf("hot key, %d replicas × %d callers: executions a flight", replicas, hotCallers), runs, 1)
			s.ratio("… Redis' processor time", hot, floor, "one SET NX and one PUBLISH", 1.2, false, microseconds)
		}
	}
	base, each := fit(xs, ours)
	bareBase, bareEach := fit(xs, bare)
	t.Note = fmt.Sprintf("Redis works %s for a flight and %s more for each replica, straight lines both; the least that there is to do, %s and %s.",
		microseconds(base), microseconds(each), microseconds(bareBase), microseconds(bareEach))
	s.Tables = append(s.Tables, t)
}

// hotKey returns what one flight of a hot key costs Redis, and one of the floor.
func hotKey(b *bench, replicas int) (hot, floor, runs, through float64) {
	addr, stop := startRedis()
	defer stop()
	rounds, each := b.rounds(7), 5
	cpu := map[string][]float64{}
	var moved []float64
	var all []*flights
	for _, peer := range []fleetPeer{{name: oursHot, hot: true, make: newFleetcall}, floors()[0]} {
		f := newFlights(addr, peer, replicas, hotCallers, fleetFunction, make([]byte, 100))
		defer f.close()
		f.round(2) // connects, subscribes
		time.Sleep(settle)
		f.executions = 0
		all = append(all, f)
	}
	for range rounds {
		for _, f := range all {
			u := usedBy(addr, each, func() { f.round(each) })
			cpu[f.peer.name] = append(cpu[f.peer.name], u.cpu)
			if f.peer.name == oursHot {
				moved = append(moved, u.in+u.out)
			}
		}
	}
	return median(cpu[oursHot]), median(cpu[bareFloor]), float64(all[0].executions) / float64(rounds*each), median(moved)
}
