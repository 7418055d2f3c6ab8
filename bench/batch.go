package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// batchKeys is how many keys a list page asks for at once.
const batchKeys = 100

// measureBatch compares one call for many keys to a call for each of them.
func measureBatch(b *bench) {
	s := b.section("batch", "Batches")
	us := startBeside()
	defer us.close()
	round := 0
	keys := func(n int) []string {
		round++
		all := make([]string, n)
		for i := range all {
			all[i] = fmt.Sprintf("batch-%d-%d", round, i)
		}
		return all
	}
	fallbacks := 0
	many := func(keys []string) { fallbacks = askMany(us.ctx, us.group, keys, coalesce.Leader) }
	many(keys(2)) // loads the scripts
	us.call("batch-warm")
	time.Sleep(settle) // until the flights of the warm-up have ended in Redis, too

	cold, _ := countCommands(us.addr, b.rounds(5), func() { many(keys(batchKeys)) })
	s.limit("100 cold keys, one caller: round trips", cold, 2)
	s.limit("100 hot keys that another replica fetches: commands of the follower", followerCommands(us), 1)

	var together, apart []float64
	for range b.rounds(15) {
		all := keys(batchKeys)
		together = append(together, usedBy(us.addr, batchKeys, func() { many(all) }).cpu)
		apart = append(apart, usedBy(us.addr, batchKeys, func() {
			for _, key := range keys(batchKeys) {
				us.call(key)
			}
		}).cpu)
	}
	s.ratio("100 cold keys: Redis' processor time for a key", median(together), median(apart), "100 calls of one key", 1.0/3, false, microseconds)

	t := table{Title: "One call of DoMany", Columns: []string{"keys", "took", "memory allocated", "run without the lease"}}
	for _, n := range []int{batchKeys, 1000, 10_000} {
		without := 0
		took, memory := costOfMany(b.rounds(5), func() func() {
			without += fallbacks
			all := keys(n)
			return func() { many(all) }
		})
		t.add(strconv.Itoa(n), milliseconds(took), size(memory), strconv.Itoa(without+fallbacks))
		fallbacks = 0
	}
	t.Note = "Nobody else asks for the keys. The memory is what the process allocates until the call returns, and all but the results is garbage then."
	s.Tables = append(s.Tables, t)
}

// askMany calls for keys whose function does nothing, and for which the caller should have
// that role. It returns for how many it fell back: on a machine that has much else to do,
// a reply may come too late.
func askMany(ctx context.Context, group *distributed.Group[[]byte], keys []string, role coalesce.Role) (fallbacks int) {
	results, err := group.DoMany(ctx, keys, func(_ context.Context, keys []string) (map[string][]byte, error) {
		all := make(map[string][]byte, len(keys))
		for _, key := range keys {
			all[key] = nil
		}
		return all, nil
	})
	must(err)
	for key, r := range results {
		switch must(r.Err); r.Role {
		case role:
		case coalesce.Fallback:
			fallbacks++
		default:
			must(fmt.Errorf("%s: the caller was a %v, not a %v", key, r.Role, role))
		}
	}
	return fallbacks
}

// followerCommands returns how many commands a replica sends for a batch whose keys another
// one fetches, when it has followed them before.
func followerCommands(us beside) float64 {
	follower, stop := newGroup(us.addr)
	defer stop()
	keys := make([]string, batchKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("hot-%d", i)
	}
	var sent float64
	for range 2 { // the first time, it subscribes
		followed := make(chan struct{})
		_, err := us.group.DoMany(us.ctx, keys, func(_ context.Context, led []string) (map[string][]byte, error) {
			m := startMonitor(us.addr)
			go func() {
				defer close(followed)
				askMany(us.ctx, follower, keys, coalesce.RemoteFollower)
			}()
			time.Sleep(5 * settle) // for the subscriptions of the first time
			sent = float64(len(m.stop()))
			all := make(map[string][]byte, len(led))
			for _, key := range led {
				all[key] = nil
			}
			return all, nil
		})
		must(err)
		<-followed
		time.Sleep(settle) // until the finishes are in Redis: the next round begins with free keys
	}
	return sent
}

// costOfMany returns the median time of a call, and of the bytes that it allocates.
func costOfMany(rounds int, prepare func() func()) (took, memory float64) {
	var times, bytes []float64
	for range rounds {
		call := prepare()
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began := time.Now()
		call()
		times = append(times, float64(time.Since(began)))
		runtime.ReadMemStats(&after)
		bytes = append(bytes, float64(after.TotalAlloc-before.TotalAlloc))
		time.Sleep(settle) // until the finishes are in Redis: their work is not the next call's
	}
	return median(times), median(bytes)
}
