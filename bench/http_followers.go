package main

import (
	"fmt"
	"math"
	"net/http"
	"sync"
	"time"
)

// measureFollowers measures how much later than the leader's client those have the answer
// who share it.
func measureFollowers(b *bench, s *section, o *origin, r rivals) {
	flights := 60
	if b.quick {
		flights = 2
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	const ours, locked = "fleetcall proxy, 3 replicas", "nginx, proxy_cache_lock"
	delays, asked := map[string][]float64{}, map[string]int{}
	next := 0
	contend := func(name string, bases []string) func(int) {
		return func(i int) {
			// Who looks again every 500 ms sees the answer sooner or later, by when it comes:
			// these are spread evenly over that time.
			_, phase := math.Modf(float64(i) * math.Phi)
			held := 50*time.Millisecond + time.Duration(phase*float64(500*time.Millisecond))
			next++
			asked[name] += o.during(func() {
				delays[name] = append(delays[name], followersDelays(client, o, bases, fmt.Sprintf("/held/%d", next), held)...)
			})
		}
	}
	contenders := []func(int){contend(ours, r.ours), contend(locked, []string{r.locked})}
	for i := range flights {
		for j := range contenders {
			contenders[(i+j)%len(contenders)](i)
		}
	}

	s.within("follower after the leader, p50", quantile(delays[ours], 0.5), 5e6, milliseconds)
	s.within("follower after the leader, p99", quantile(delays[ours], 0.99), 5e6, milliseconds)
	t := table{
		Title:   fmt.Sprintf("How much later than the leader's client a follower has the answer: %d flights of 1 and %d", flights, followersOfFlight),
		Columns: []string{"", "p50", "p90", "p99", "longest", "requests upstream, a flight"},
	}
	for _, name := range []string{ours, locked} {
		row := []string{name}
		for _, q := range []float64{0.5, 0.9, 0.99, 1} {
			row = append(row, milliseconds(quantile(delays[name], q)))
		}
		t.add(append(row, count(float64(asked[name])/float64(flights)))...)
	}
	s.Tables = append(s.Tables, t)
}

const followersOfFlight = 15

// followersDelays has one request for a page lead, and as many as follow it, at all of the
// bases, come while the upstream holds it. It returns how many nanoseconds later than the
// leader each follower had its answer: less than nothing where it was sooner.
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
