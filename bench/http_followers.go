package main

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

const followersOfFlight = 15

// measureFollowers measures how much later than the leader's client those have the answer
// who share it.
func measureFollowers(b *bench, s *section, o *origin, r rivals) {
	turns := 60
	if b.quick {
		turns = 2
	}
	const there, elsewhere, locked = "fleetcall proxy, at the leader's replica", "fleetcall proxy, at the others", "nginx, proxy_cache_lock"
	delays, flights, asked := map[string][]float64{}, map[string]int{}, map[string]int{}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	next := 0
	fly := func(name string, bases []string, held time.Duration, add func(i int, delay float64)) {
		next++
		flights[name]++
		asked[name] += o.during(func() {
			for i, delay := range followersDelays(client, o, bases, fmt.Sprintf("/held/%d", next), held) {
				add(i+1, delay)
			}
		})
	}
	for turn := range turns {
		// Who looks again every 500 ms sees the answer sooner or later, by when it comes:
		// these are spread evenly over that time. Who is told does not depend on it.
		_, phase := math.Modf(float64(turn) * math.Phi)
		fly(locked, []string{r.locked}, 50*time.Millisecond+time.Duration(phase*float64(500*time.Millisecond)), func(_ int, delay float64) {
			delays[locked] = append(delays[locked], delay)
		})
		for range 5 {
			fly(elsewhere, r.ours, 100*time.Millisecond, func(i int, delay float64) {
				name := elsewhere
				if i%len(r.ours) == 0 {
					name = there
				}
				delays[name] = append(delays[name], delay)
			})
		}
	}

	s.within("follower at another replica, after the leader, p50", quantile(delays[elsewhere], 0.5), 5e6, milliseconds)
	s.within("follower at another replica, after the leader, p99", quantile(delays[elsewhere], 0.99), 5e6, milliseconds)
	t := table{
		Title:   fmt.Sprintf("How much later than the leader's client the %d followers of a flight have the answer", followersOfFlight),
		Columns: []string{"", "p50", "p90", "p99", "longest", "flights", "requests upstream"},
	}
	flights[there], asked[there] = flights[elsewhere], asked[elsewhere]
	for _, name := range []string{there, elsewhere, locked} {
		row := []string{name}
		for _, q := range []float64{0.5, 0.9, 0.99, 1} {
			row = append(row, milliseconds(quantile(delays[name], q)))
		}
		t.add(append(row, thousands(flights[name]), thousands(asked[name]))...)
	}
	t.Note = "Less than nothing: the follower's client had it before the leader's."
	s.Tables = append(s.Tables, t)
}

// followersDelays has one request for a page lead, and as many as follow it, at all of the
// bases in turn, come while the upstream holds it. It returns how many nanoseconds later
// than the leader each follower had its answer: less than nothing where it was sooner.
func followersDelays(client *http.Client, o *origin, bases []string, path string, held time.Duration) []float64 {
	page := o.hold(path)
	var group sync.WaitGroup
	ends := make([]time.Time, followersOfFlight+1)
	errs := make([]error, len(ends))
	get := func(i int) {
		group.Go(func() {
			errs[i] = fetch(client, bases[i%len(bases)]+path)
			ends[i] = time.Now()
		})
	}
	get(0)
	<-page.asked
	for i := range followersOfFlight {
		get(i + 1)
	}
	time.Sleep(held) // the page takes that long
	close(page.release)
	group.Wait()
	var delays []float64
	for i, err := range errs {
		must(err)
		if i > 0 {
			delays = append(delays, float64(ends[i].Sub(ends[0])))
		}
	}
	return delays
}
