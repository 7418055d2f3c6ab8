package main

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const largeFunction = 50 * time.Millisecond // longer than the followers need to join

const pingNote = "The time is the median of the rounds; of the longest PINGs of the rounds there stand the median and the longest of all. A process of " +
	"its own sends one every 200 µs, and goes before all others where it may: so it does not measure its own wait for a processor. " +
	"Redis' wait for one is part of it, where replicas and Redis share a machine: the bare ones show how much."

// measureLarge hands results of some MiB over, and compares that to a bare SET and
// three GETs of as much. What others notice of it is the longest PING of another process.
func measureLarge(b *bench) {
	addr, stop := startRedis()
	defer stop()
	s := b.section("large", "Large results")
	bare := newClient(addr)
	defer func() { _ = bare.Close() }()
	pauses := startPinger(addr)
	defer pauses.close()
	var replicas []replica
	for range fleetReplicas {
		r := newFleetcall(addr)
		defer r.close()
		replicas = append(replicas, r)
	}
	t := table{
		Title:   fmt.Sprintf("A result to %d replicas, of which one runs the function", fleetReplicas),
		Columns: []string{"", "runs a flight", "last follower has it, after the function's end", "a SET and three GETs", "longest PING beside it: median, most", "beside the bare ones", "of an idle Redis"},
		Note:    pingNote,
	}
	for _, mebibytes := range []int{1, 4, 8} {
		payload := bytes.Repeat([]byte("fleetcall"), mebibytes<<20/9+1)[:mebibytes<<20]
		runs, flights := 0, 0
		longest := map[string][]time.Duration{} // PINGs, one for each round
		noting := func(name string, do func() float64) contender {
			return contender{name, func() (took float64) {
				pauses.longest() // from here on
				took = do()
				longest[name] = append(longest[name], pauses.longest())
				return took
			}}
		}
		handOver(replicas, payload) // connects, subscribes, loads the scripts
		medians := interleave(b.rounds(25), []contender{
			noting(ours, func() float64 {
				ran, took := handOver(replicas, payload)
				runs, flights = runs+ran, flights+1
				return float64(took)
			}),
			noting("bare", func() float64 { return float64(setAndGet(bare, payload)) }),
			noting("idle", func() float64 { time.Sleep(largeFunction); return 0 }),
		})
		name := fmt.Sprintf("%d MiB", mebibytes)
		row := []string{name, count(float64(runs) / float64(flights)), milliseconds(medians[ours]), milliseconds(medians["bare"])}
		for _, beside := range []string{ours, "bare", "idle"} {
			row = append(row, milliseconds(float64(quantile(longest[beside], 0.5)))+", "+milliseconds(float64(slices.Max(longest[beside]))))
		}
		t.add(row...)
		s.limit("runs a flight, "+name, float64(runs)/float64(flights), 1)
		s.ratio("the last follower has its result, "+name, medians[ours], medians["bare"], "a SET and three GETs", 1.5, false, milliseconds)
		s.within("longest PING meanwhile, "+name, float64(slices.Max(longest[ours])), float64(20*time.Millisecond), milliseconds)
	}
	s.Tables = append(s.Tables, t)
}

// handOver has every replica ask for the same key, and returns how many functions ran,
// and how long after the end of the first the last replica had its result.
func handOver(replicas []replica, payload []byte) (runs int, took time.Duration) {
	key := fmt.Sprint("large-", flightNumber.Add(1)%8) // hot: the followers are subscribed
	var ran atomic.Int32
	var ended atomic.Int64
	var done sync.WaitGroup
	ends := make([]time.Time, len(replicas))
	for i, r := range replicas {
		done.Go(func() {
			result, err := r.do(background(), key, func(context.Context) ([]byte, error) {
				ran.Add(1)
				time.Sleep(largeFunction)
				ended.CompareAndSwap(0, time.Now().UnixNano())
				return payload, nil
			})
			ends[i] = time.Now()
			must(err)
			if len(result) != len(payload) {
				must(fmt.Errorf("a replica got %d bytes, not %d", len(result), len(payload)))
			}
		})
	}
	done.Wait()
	for _, end := range ends {
		took = max(took, end.Sub(time.Unix(0, ended.Load())))
	}
	time.Sleep(settle / 10) // what the leader still has to send
	return int(ran.Load()), took
}

// setAndGet is the least that one leader and three who fetch would send.
func setAndGet(client *redis.Client, payload []byte) time.Duration {
	began := time.Now()
	must(client.Set(background(), "bare", payload, lifetime).Err())
	for range fleetReplicas {
		value(client.Get(background(), "bare").Result())
	}
	return time.Since(began)
}
