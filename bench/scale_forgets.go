package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// forgetsASecond is how many keys one replica forgets.
const forgetsASecond = 1000

// measureForgets has one replica forget keys, of which none is in flight, and of which each
// is in flight on another replica.
func measureForgets(b *bench, s *section) {
	c := startCrowd(b.replicas)
	defer c.close()
	lasting := b.lasting(3 * time.Second)
	t := table{
		Title:   fmt.Sprintf("Forget: %s keys a second by one of %s replicas", thousands(forgetsASecond), thousands(b.replicas)),
		Columns: []string{"keys", "forgotten a second", "bytes out of Redis a second", "Redis' CPU"},
	}
	for _, inFlight := range []bool{false, true} {
		name := map[bool]string{false: "idle", true: "each in flight on another replica"}[inFlight]
		keys := int(forgetsASecond * lasting.Seconds())
		end := make(chan struct{})
		var calls sync.WaitGroup
		if inFlight && len(c.groups) > 1 {
			fly(c, keys, &calls, end)
		}
		rate, u := forgetting(c, keys, lasting)
		close(end)
		calls.Wait()
		t.add(name, thousands(int(rate)), size(u.out), microseconds(u.cpu))
		s.within(fmt.Sprintf("%s Forgets a second, %d replicas, keys %s: bytes out of Redis a second", thousands(forgetsASecond), b.replicas, name), u.out, 1e6, size)
	}
	s.Tables = append(s.Tables, t)
}

// fly begins flights that forgets will concern.
func fly(c *crowd, keys int, calls *sync.WaitGroup, end chan struct{}) {
	var began atomic.Int64
	for key := range keys {
		calls.Go(func() {
			c.call(1, fmt.Sprintf("forgotten-%d", key), func(context.Context) ([]byte, error) { began.Add(1); <-end; return nil, nil })
		})
		if key%50 == 49 {
			await(key/2, func() int { return int(began.Load()) })
		}
	}
	await(keys, func() int { return int(began.Load()) })
}

// forgetting forgets the keys at a steady pace, and returns how many a second, and what
// Redis did in one.
func forgetting(c *crowd, keys int, lasting time.Duration) (rate float64, each usage) {
	begin := time.Now()
	var lasted time.Duration
	u := usedBy(c.addr, 1, func() {
		const together = 10 // an update of the database changes some rows
		for i := 0; i < keys; i += together {
			time.Sleep(time.Until(begin.Add(lasting * time.Duration(i) / time.Duration(keys))))
			var some []string
			for key := i; key < min(i+together, keys); key++ {
				some = append(some, fmt.Sprintf("forgotten-%d", key))
			}
			must(c.groups[0].Forget(background(), some...))
		}
		lasted = time.Since(begin)
	})
	seconds := lasted.Seconds()
	return float64(keys) / seconds, usage{u.in / seconds, u.out / seconds, u.cpu / seconds}
}

// measureManyKeys has one replica want very many keys at once, with every default.
func measureManyKeys(b *bench, s *section) {
	t := table{
		Title:   "Keys at once: one replica, one caller each, a function of 100 ms",
		Columns: []string{"keys", "fell back", "beyond the function, p50", "p99"},
	}
	sizes := []int{1_000, 3_000, 10_000}
	if b.quick {
		sizes = []int{100}
	}
	for i, keys := range sizes {
		addr, stop := startRedis()
		waits, fallbacks := manyKeys(addr, keys)
		stop()
		t.add(thousands(keys), thousands(fallbacks), milliseconds(float64(quantile(waits, 0.5))), milliseconds(float64(quantile(waits, 0.99))))
		if i == len(sizes)-1 {
			s.limit(thousands(keys)+" keys at once, one replica: fallbacks", float64(fallbacks), 0)
		}
	}
	s.Tables = append(s.Tables, t)
}

// growLargePayload has the whole fleet want one key, whose result grows.
func growLargePayload(b *bench, s *section) {
	t := table{
		Title:   fmt.Sprintf("Payload: one flight of a hot key, %s replicas", thousands(b.replicas)),
		Columns: []string{"payload", "runs a flight", "bytes through Redis", "times the payload", "Redis' CPU"},
		Note: "A result goes to Redis once, and from it to each replica: N + 1 times in all. One over 64 KiB is fetched by each follower. " +
			"What a fleet can share is bounded by the network card of its Redis, and each doubling of the fleet doubles it.",
	}
	sizes := []int{100, 10 << 10, 64 << 10, 256 << 10}
	if b.quick {
		sizes = sizes[:2]
	}
	for _, bytes := range sizes {
		c := startCrowd(b.replicas)
		var executions atomic.Int64
		flight := func() {
			var calls sync.WaitGroup
			for i := range c.groups {
				calls.Go(func() {
					c.call(i, "hot", func(context.Context) ([]byte, error) {
						executions.Add(1)
						time.Sleep(100 * time.Millisecond) // for as long as the joins of a large fleet take on a small machine
						return make([]byte, bytes), nil
					})
				})
			}
			calls.Wait()
		}
		flight()
		time.Sleep(settle)
		executions.Store(0)
		const flights = 3
		u := usedBy(c.addr, flights, func() {
			for range flights {
				flight()
				time.Sleep(settle)
			}
		})
		t.add(size(float64(bytes)), count(float64(executions.Load())/flights), size(u.in+u.out), count((u.in+u.out)/float64(bytes)), microseconds(u.cpu))
		c.close()
	}
	s.Tables = append(s.Tables, t)
}
