package main

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// usage is what a Redis has done since it was started.
type usage struct {
	in, out float64 // bytes
	cpu     float64 // nanoseconds of its main thread
}

func readUsage(client *redis.Client) usage {
	text := value(client.Info(background(), "stats", "cpu").Result())
	field := func(name string) float64 {
		_, rest, ok := strings.Cut(text, "\n"+name+":")
		if !ok {
			must(fmt.Errorf("INFO has no %s", name))
		}
		number, _, _ := strings.Cut(rest, "\r\n")
		return value(strconv.ParseFloat(number, 64))
	}
	return usage{
		in:  field("total_net_input_bytes"),
		out: field("total_net_output_bytes"),
		cpu: 1e9 * (field("used_cpu_user_main_thread") + field("used_cpu_sys_main_thread")),
	}
}

// usedBy returns what Redis did for one of n flights, without what asking for it
// costs.
func usedBy(addr string, n int, fly func()) usage {
	client := newObserver(addr)
	defer func() { _ = client.Close() }()
	readUsage(client) // connects
	first := readUsage(client)
	before := readUsage(client)
	fly()
	time.Sleep(settle)
	after := readUsage(client)
	asking := usage{before.in - first.in, before.out - first.out, before.cpu - first.cpu}
	each := func(after, before, asking float64) float64 { return max(after-before-asking, 0) / float64(n) }
	return usage{each(after.in, before.in, asking.in), each(after.out, before.out, asking.out), each(after.cpu, before.cpu, asking.cpu)}
}

// measureGrowth fills the report's section on how cost grows.
func measureGrowth(b *bench) {
	s := b.section("growth", "Growth")
	growReplicas(b, s)
	growWaiters(b, s)
	growKeys(b, s)
	growPayload(b, s)
}

// growReplicas is one hot key, and more and more replicas that want it.
func growReplicas(b *bench, s *section) {
	t := table{
		Title:   "Replicas: one flight of a hot key, 10 callers each, 100 bytes, a function of 20 ms",
		Columns: []string{"replicas", "commands", "bytes through Redis", "Redis' CPU", "beyond the function, p50", "p99"},
	}
	commands := chart{File: "commands.svg", Title: "Commands of one flight", X: "replicas", Y: "commands", Lines: []line{{Name: "hot key"}, {Name: "cold key (without unsubscribe)"}}}
	waits := chart{File: "replicas.svg", Title: "Wait beyond the function", X: "replicas", Y: "milliseconds", Lines: []line{{Name: "p50"}, {Name: "p99"}}}
	sizes, n := []int{1, 2, 4, 8, 16, 32}, 15
	if b.quick {
		sizes, n = []int{1, 4}, 3
	}
	var xs, cpu, through []float64
	for _, replicas := range sizes {
		addr, stop := startRedis()
		hot := newFlights(addr, fleetPeer{name: "hot", hot: true, make: newFleetcall}, replicas, 10, fleetFunction, make([]byte, 100))
		hot.round(2)
		hotCommands, _ := countCommands(addr, 3, hot.fly)
		u := usedBy(addr, n, func() { hot.round(n) })
		cold := newFlights(addr, fleetPeer{name: "cold", make: newFleetcall}, replicas, 10, fleetFunction, make([]byte, 100))
		cold.round(1)
		time.Sleep(settle)
		coldCommands, _ := countCommands(addr, 3, cold.fly)
		x := float64(replicas)
		p50, p99 := quantile(hot.waits, 0.5), quantile(hot.waits, 0.99)
		t.add(strconv.Itoa(replicas), count(hotCommands), size(u.in+u.out), microseconds(u.cpu), milliseconds(float64(p50)), milliseconds(float64(p99)))
		commands.Lines[0].add(x, hotCommands)
		commands.Lines[1].add(x, coldCommands)
		waits.Lines[0].add(x, float64(p50)/1e6)
		waits.Lines[1].add(x, float64(p99)/1e6)
		xs, cpu, through = append(xs, x), append(cpu, u.cpu), append(through, u.in+u.out)
		hot.close()
		cold.close()
		stop()
	}
	base, each := fit(xs, cpu)
	_, bytesEach := fit(xs, through)
	at1000 := base + 1000*each
	t.Note = fmt.Sprintf("A hot key costs one command more for each replica, its join, and a cold one three: straight lines, 1 + N and 3N − 1 "+
		"(and an unsubscribe for each follower, 30 s later). Redis works %s for a flight and %s more for each replica, for its join and its copy of the "+
		"message. A flight of 1,000 replicas takes %s of Redis' one core and moves %s through it: the waits bend where the joins of one moment "+
		"take that core longer than a round trip takes, and from there on grow in proportion.",
		microseconds(base), microseconds(each), milliseconds(at1000), size(1000*bytesEach))
	b.Facts.ReplicaCPU, b.Facts.FlightCPU = each, base
	s.Tables = append(s.Tables, t)
	s.Charts = append(s.Charts, commands, waits)
}

// growWaiters is one replica with more and more callers of one key.
func growWaiters(b *bench, s *section) {
	t := table{
		Title:   "Waiting callers: one key, one replica",
		Columns: []string{"callers", "memory each", "beyond the function, p50", "p99"},
	}
	waits := chart{File: "waiters.svg", Title: "Wait beyond the function", X: "callers of one key at one replica", Y: "milliseconds", Lines: []line{{Name: "p50"}, {Name: "p99"}}}
	sizes := []int{10, 100, 1_000, 10_000, 100_000}
	if b.quick {
		sizes = []int{10, 1_000}
	}
	addr, stop := startRedis()
	defer stop()
	var last float64
	for _, callers := range sizes {
		f := newFlights(addr, fleetPeer{name: "waiters", hot: true, make: newFleetcall}, 1, callers, 50*time.Millisecond+time.Duration(callers)*5*time.Microsecond, make([]byte, 100))
		f.round(1)
		f.round(3)
		p50, p99 := quantile(f.waits, 0.5), quantile(f.waits, 0.99)
		f.close()
		shown := ""
		if callers >= measurable {
			last = memoryPerCall(addr, callers, func(int) string { return "one" })
			shown = size(last)
		}
		t.add(thousands(callers), shown, milliseconds(float64(p50)), milliseconds(float64(p99)))
		waits.Lines[0].add(float64(callers), float64(p50)/1e6)
		waits.Lines[1].add(float64(callers), float64(p99)/1e6)
	}
	t.Note = "They send no command: the slope is that of waking goroutines, one after another, on the cores there are, " +
		"and it bends where their memory no longer fits. A caller's memory is its goroutine's stack."
	b.Facts.Waiter = last
	s.Tables = append(s.Tables, t)
	s.Charts = append(s.Charts, waits)
}

// growKeys is one replica with more and more keys in flight, a caller each.
func growKeys(b *bench, s *section) {
	t := table{
		Title:   "Keys in flight: one replica, one caller each, a function of 100 ms",
		Columns: []string{"keys", "memory a flight", "fell back", "beyond the function, p50", "p99"},
	}
	waits := chart{File: "keys.svg", Title: "Wait beyond the function", X: "keys in flight at one replica", Y: "milliseconds", Lines: []line{{Name: "p50"}, {Name: "p99"}}}
	sizes := []int{1, 10, 100, 1_000, 10_000}
	if b.quick {
		sizes = []int{1, 1_000}
	}
	addr, stop := startRedis()
	defer stop()
	var last float64
	for _, keys := range sizes {
		shown := ""
		if keys >= measurable {
			last = memoryPerCall(addr, keys, func(i int) string { return fmt.Sprintf("key-%d", i) })
			shown = size(last)
		}
		waited, fallbacks := manyKeys(addr, keys)
		p50, p99 := quantile(waited, 0.5), quantile(waited, 0.99)
		t.add(thousands(keys), shown, thousands(fallbacks), milliseconds(float64(p50)), milliseconds(float64(p99)))
		waits.Lines[0].add(float64(keys), float64(p50)/1e6)
		waits.Lines[1].add(float64(keys), float64(p99)/1e6)
	}
	t.Note = "Each key costs its join and finish, whoever else is in flight: the wait is the queue for Redis and the cores, and grows in proportion once there is one. " +
		"It bends at the Redis timeout (250 ms): what would wait longer falls back to its own run."
	b.Facts.Flight = last
	s.Tables = append(s.Tables, t)
	s.Charts = append(s.Charts, waits)
}

// manyKeys calls for n keys at once and returns what the callers waited beyond
// the function, and how many fell back.
func manyKeys(addr string, n int) ([]time.Duration, int) {
	group, stop := newGroup(addr)
	defer stop()
	_, _, err := group.Do(background(), "warm-up", nothing)
	must(err)
	waits := make([]time.Duration, n)
	var wg sync.WaitGroup
	release := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-release
			begin := time.Now()
			var ran time.Duration
			_, _, err := group.Do(background(), fmt.Sprintf("many-%d", i), func(context.Context) ([]byte, error) {
				began := time.Now()
				time.Sleep(100 * time.Millisecond) // the work that is shared
				ran = time.Since(began)
				return nil, nil
			})
			must(err)
			waits[i] = time.Since(begin) - ran
		})
	}
	close(release)
	wg.Wait()
	return waits, int(group.Stats().Distributed.Fallbacks)
}

// measurable is how many calls' memory stands out of the rest of the process'.
const measurable = 1_000

// memoryPerCall returns the bytes of heap and stacks for each of n callers that
// wait for a function to return.
func memoryPerCall(addr string, n int, key func(i int) string) float64 {
	// A slow start must not end as fallbacks: they wait all the same.
	group, stop := newGroup(addr, distributed.WithRedisTimeout(10*time.Second), distributed.WithLeaseTTL(10*time.Second))
	defer stop()
	_, _, err := group.Do(background(), "warm-up", nothing)
	must(err)
	release := make(chan struct{})
	var wg sync.WaitGroup
	before := memory()
	for i := range n {
		wg.Go(func() {
			_, _, err := group.Do(background(), key(i), func(context.Context) ([]byte, error) { <-release; return nil, nil })
			must(err)
		})
	}
	for group.Stats().Local.Waiting < int64(n) {
		time.Sleep(time.Millisecond) // no event announces that all wait
	}
	time.Sleep(settle) // the last joins
	used := memory() - before
	close(release)
	wg.Wait()
	return max(used, 0) / float64(n)
}

func memory() float64 {
	runtime.GC()
	runtime.GC() // stacks of the ended are freed in the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapInuse + m.StackInuse)
}

// growPayload is three replicas with larger and larger results.
func growPayload(b *bench, s *section) {
	t := table{
		Title:   "Payload: one flight of a hot key, 3 replicas, 10 callers each, a function of 20 ms",
		Columns: []string{"payload", "runs a flight", "commands", "bytes through Redis", "times the payload", "beyond the function, p50", "p99"},
	}
	bytes := chart{File: "bytes.svg", Title: "Bytes through Redis, 3 replicas", X: "payload, bytes", Y: "bytes in and out", Lines: []line{{Name: "fleetcall"}}}
	waits := chart{File: "payload.svg", Title: "Wait beyond the function, 3 replicas", X: "payload, bytes", Y: "milliseconds", Lines: []line{{Name: "p50"}, {Name: "p99"}}}
	sizes := []int{100, 1 << 10, 10 << 10, 64 << 10, 512 << 10, 1 << 20, 8 << 20}
	if b.quick {
		sizes = []int{100, 512 << 10}
	}
	addr, stop := startRedis()
	defer stop()
	for _, payload := range sizes {
		n := 12
		if payload > 1<<20 {
			n = 4
		}
		f := newFlights(addr, fleetPeer{name: "payload", hot: true, make: newFleetcall}, fleetReplicas, 10, fleetFunction, make([]byte, payload))
		f.round(2)
		commands, _ := countCommands(addr, 3, f.fly)
		f.executions = 0
		u := usedBy(addr, n, func() { f.round(n) })
		runs := float64(f.executions) / float64(n)
		f.close()
		p50, p99 := quantile(f.waits, 0.5), quantile(f.waits, 0.99)
		t.add(size(float64(payload)), count(runs), count(commands), size(u.in+u.out), count((u.in+u.out)/float64(payload)), milliseconds(float64(p50)), milliseconds(float64(p99)))
		bytes.Lines[0].add(float64(payload), u.in+u.out)
		waits.Lines[0].add(float64(payload), float64(p50)/1e6)
		waits.Lines[1].add(float64(payload), float64(p99)/1e6)
	}
	t.Note = "A payload goes to Redis once and from it once for each replica that listens on the key's channel, the leader among them if it has followed before: N + 1 times in all. " +
		"Over 64 KiB it is stored and fetched in pieces of 512 KiB (a finish and a SET for each piece more, and for each follower a GET) instead of published: N times. The line is straight as soon as it outweighs the commands' own bytes. " +
		"Runs above one are flights in which Redis took longer than it may (250 ms, and 64 ms for each MiB): their result is not shared, and each replica runs its own. " +
		"At 1,000 replicas, 1 MiB is a gigabyte through one network card: there the answer is a smaller result, or a cache of one's own."
	s.Tables = append(s.Tables, t)
	s.Charts = append(s.Charts, bytes, waits)
}

// fit returns the least-squares line through the points.
func fit(xs, ys []float64) (base, slope float64) {
	var sx, sy, sxx, sxy float64
	for i, x := range xs {
		sx, sy, sxx, sxy = sx+x, sy+ys[i], sxx+x*x, sxy+x*ys[i]
	}
	n := float64(len(xs))
	slope = (n*sxy - sx*sy) / (n*sxx - sx*sx)
	return (sy - slope*sx) / n, slope
}
