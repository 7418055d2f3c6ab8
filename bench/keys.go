package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	pairsAtOnce     = 256
	keysOfWorker    = 16 // used in turn
	pipelines       = 4  // at once
	pairsOfPipeline = pairsAtOnce / pipelines
)

// measureKeys compares the rate of calls with different keys to the rate of
// their two commands, sent in each way that go-redis offers.
func measureKeys(b *bench) {
	s := b.section("keys", "Different keys at once")
	lasting, rounds := 500*time.Millisecond, b.rounds(19)
	if b.quick {
		lasting = 200 * time.Millisecond
	}
	us := startBeside()
	defer us.close()
	keys := make([]string, pairsAtOnce*keysOfWorker)
	for i := range keys {
		keys[i] = fmt.Sprintf("pair-%d", i)
	}
	recorded := recordSteps(us.addr, us.call, pairsAtOnce*keysOfWorker)
	automatic := value(us.client.AutoPipeline())
	defer func() { _ = automatic.Close() }()

	bare := func(send redis.Cmdable) func(worker, i int) {
		doer := send.(interface {
			Do(context.Context, ...any) *redis.Cmd
		})
		return func(worker, i int) {
			pair := recorded[worker*keysOfWorker+i%keysOfWorker]
			must(doer.Do(us.ctx, pair.join...).Err())
			must(doer.Do(us.ctx, pair.finish...).Err())
		}
	}
	pipelined := func() float64 { return pipelinedRate(us, lasting, recorded) }
	natives := nativePairs(pairsAtOnce * keysOfWorker)
	native := func() float64 { return pipelinedRate(us, lasting, natives) }
	ours := func() float64 {
		before := us.group.Stats().Distributed
		all := rate(pairsAtOnce, lasting, func(worker, i int) { us.call(keys[worker*keysOfWorker+i%keysOfWorker]) })
		after := us.group.Stats().Distributed
		// A call that fell back sent no pair.
		return all * float64(after.Leaders-before.Leaders) / float64(after.Requests-before.Requests)
	}
	rates := interleave(rounds, []contender{
		{"fleetcall", ours},
		{nativeName, native},
		{"plain", func() float64 { return rate(pairsAtOnce, lasting, bare(us.client)) }},
		{"auto-pipelined", func() float64 { return rate(pairsAtOnce, lasting, bare(automatic)) }},
		{"pipelined", pipelined},
	})
	t, fastest := tableOfKeys(rates)
	cpu := interleave(min(rounds, 7), []contender{
		{"fleetcall", func() float64 { return busyWith(us.addr, ours) }},
		{"by itself", func() float64 { return busyWith(us.addr, pipelined) }},
		{nativeName, func() float64 { return busyWith(us.addr, native) }},
	})
	b.Facts.PairCPU = cpu["by itself"]
	fallbacks := us.group.Stats().Distributed.Fallbacks
	t.Note = fmt.Sprintf("%s calls of fleetcall fell back to running without Redis, and are not counted.", thousands(int(fallbacks)))
	s.Tables = append(s.Tables, t, tableOfPairs(cpu))
	s.ratio(fmt.Sprintf("different keys, %d at once", pairsAtOnce), rates["fleetcall"], rates[fastest], "bare, "+fastest, 0.7, true, perSecond)
	s.ratio(fmt.Sprintf("different keys, %d at once", pairsAtOnce), rates["fleetcall"], rates[nativeName], nativeName, 0.6, true, perSecond)
	s.within("Redis' CPU of a flight nobody joined", cpu["fleetcall"], 12e3, microseconds)
	s.ratio("Redis' CPU of a flight nobody joined", cpu["fleetcall"], cpu[nativeName], nativeName, 3, false, microseconds)
}

const nativeName = "pipelined SET NX GET and DEL"

// nativePairs are the two commands that would take a lease, or tell who has it, and give it
// back, and promise nothing else.
func nativePairs(n int) []steps {
	all := make([]steps, n)
	for i := range all {
		key, flight := fmt.Sprintf("native-%d", i), fmt.Sprintf("%022d", i)
		all[i] = steps{join: []any{"set", key, flight, "nx", "get", "px", "3000"}, finish: []any{"del", key}}
	}
	return all
}

// busyWith returns how long Redis works for one of the pairs whose rate is measured
// meanwhile, in nanoseconds.
func busyWith(addr string, rate func() float64) float64 {
	pairs := 0.0
	busy := usedBy(addr, 1, func() {
		begin := time.Now()
		pairs = rate()
		pairs *= time.Since(begin).Seconds()
	})
	return busy.cpu / pairs
}

func tableOfPairs(cpu map[string]float64) table {
	t := table{
		Title:   fmt.Sprintf("Redis' CPU of a flight nobody joined, %d at once", pairsAtOnce),
		Columns: []string{"", "Redis' CPU", "beside native"},
	}
	for _, row := range [][2]string{{"fleetcall", "fleetcall, as it sends them: scripts of many keys"}, {"by itself", "its join and finish, each by itself, pipelined"}, {nativeName, nativeName}} {
		t.add(row[1], microseconds(cpu[row[0]]), fmt.Sprintf("%.1f", cpu[row[0]]/cpu[nativeName]))
	}
	t.Note = "The native pair takes the lease or tells who has it, and gives it back: no outcome, no count of deaths, no clock."
	return t
}

// rate lets workers work for a while and returns how often a second they did.
func rate(workers int, lasting time.Duration, work func(worker, i int)) float64 {
	var wg sync.WaitGroup
	counts := make([]int, workers)
	begin := time.Now()
	for worker := range workers {
		wg.Go(func() {
			for time.Since(begin) < lasting {
				work(worker, counts[worker])
				counts[worker]++
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(begin).Seconds()
}

// tableOfKeys shows the rates, and names the fastest of the bare ones.
func tableOfKeys(rates map[string]float64) (t table, fastest string) {
	t = table{
		Title:   fmt.Sprintf("Calls with different keys a second, %d at once, one replica", pairsAtOnce),
		Columns: []string{"", "a second", "fleetcall's share"},
	}
	fastest = "plain"
	t.add(nativeName, perSecond(rates[nativeName]), fmt.Sprintf("%.2f", rates["fleetcall"]/rates[nativeName]))
	for _, name := range []string{"fleetcall", "plain", "auto-pipelined", "pipelined"} {
		t.add(map[string]string{"fleetcall": "fleetcall"}[name]+map[bool]string{true: "bare join and finish, " + name}[name != "fleetcall"],
			perSecond(rates[name]), fmt.Sprintf("%.2f", rates["fleetcall"]/rates[name]))
		if name != "fleetcall" && rates[name] > rates[fastest] {
			fastest = name
		}
	}
	return t, fastest
}

// pipelinedRate is how many pairs a second four workers send that do what 256 callers
// would, 64 joins and then their 64 finishes in a pipeline each: a finish goes after
// the reply to its join.
func pipelinedRate(us beside, lasting time.Duration, recorded []steps) float64 {
	return pairsOfPipeline * rate(pipelines, lasting, func(worker, round int) {
		pairs := recorded[worker*pairsOfPipeline*keysOfWorker:]
		for _, step := range []func(steps) []any{func(s steps) []any { return s.join }, func(s steps) []any { return s.finish }} {
			commands, _ := us.client.Pipelined(us.ctx, func(pipe redis.Pipeliner) error {
				for i := range pairsOfPipeline {
					pipe.Do(us.ctx, step(pairs[i*keysOfWorker+round%keysOfWorker])...)
				}
				return nil
			})
			for _, command := range commands {
				if err := command.Err(); !errors.Is(err, redis.Nil) { // that of a SET NX GET which took the key
					must(err)
				}
			}
		}
	})
}
