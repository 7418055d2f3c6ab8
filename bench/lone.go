package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

func nothing(context.Context) ([]byte, error) { return nil, nil }

// measureLone compares a call that has nobody to merge with, to the bare round
// trip of the join it sends, on a client of the same settings.
func measureLone(b *bench, s *section, addr string) {
	calls, rounds := 300, b.rounds(11)
	if b.quick {
		calls = 50
	}
	group, stop := newGroup(addr)
	defer stop()
	client := newClient(addr)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	call := func(key string) {
		_, _, err := group.Do(ctx, key, nothing)
		must(err)
	}
	recorded := recordSteps(addr, call, calls)

	// Each has its turn for a long round: a call is faster or slower by as much
	// as is measured here, according to what the connections did a moment before,
	// and those after a garbage collection have their memory to get anew.
	next := 0
	ourCall := func(int) {
		next++
		call(fmt.Sprintf("lone-%d", next))
	}
	join := func(i int) { must(client.Do(ctx, recorded[i].join...).Err()) }
	finish := func(i int) { must(client.Do(ctx, recorded[i].finish...).Err()) }
	apart := func(all *[]float64, call, after func(i int)) func() float64 {
		return func() float64 {
			begin := len(*all)
			for i := range calls {
				began := time.Now()
				call(i)
				*all = append(*all, float64(time.Since(began)))
				after(i)
				time.Sleep(time.Millisecond) // lone: nobody is near
			}
			return median((*all)[begin:])
		}
	}
	oneAfterAnother := func(call func(i int)) func() float64 {
		return func() float64 {
			return perOperation(calls, func() {
				for i := range calls {
					call(i)
				}
			})
		}
	}
	var ours, bare []float64
	const ourApart, bareApart, ourRow, bareRow = "fleetcall, apart", "bare, apart", "fleetcall, in a row", "bare, in a row"
	took := interleave(rounds, []contender{
		{ourApart, apart(&ours, ourCall, func(int) {})}, // it sends its finish itself, after the call
		{bareApart, apart(&bare, join, finish)},
		{ourRow, oneAfterAnother(ourCall)},
		{bareRow, oneAfterAnother(join)},
	})
	s.ratio("lone caller, p50", took[ourApart], took[bareApart], "bare round trip", 1.3, false, microseconds)

	t := table{title: "A lone caller", columns: []string{"", "calls 1 ms apart, p50", "p99", "one after another, mean"}}
	t.add("fleetcall", microseconds(took[ourApart]), microseconds(quantile(ours, 0.99)), microseconds(took[ourRow]))
	t.add("bare join", microseconds(took[bareApart]), microseconds(quantile(bare, 0.99)), microseconds(took[bareRow]))
	t.note = "One after another, each call meets the finish of the one before it; the bare join has no finish."
	s.tables = append(s.tables, t)
}

const pairsAtOnce = 256

// measurePairs compares the rate of calls with different keys to the rate of
// their two commands, sent in each way that go-redis offers.
func measurePairs(b *bench, s *section, addr string) {
	lasting, rounds := time.Second, b.rounds(9)
	if b.quick {
		lasting = 200 * time.Millisecond
	}
	group, stop := newGroup(addr)
	defer stop()
	client := newClient(addr)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	call := func(key string) {
		_, _, err := group.Do(ctx, key, nothing)
		must(err)
	}
	const each = 16 // keys of a worker, used in turn
	keys := make([]string, pairsAtOnce*each)
	for i := range keys {
		keys[i] = fmt.Sprintf("pair-%d", i)
	}
	recorded := recordSteps(addr, call, pairsAtOnce*each)
	automatic := value(client.AutoPipeline())
	defer func() { _ = automatic.Close() }()

	bare := func(send redis.Cmdable) func(worker, i int) {
		doer := send.(interface {
			Do(context.Context, ...any) *redis.Cmd
		})
		return func(worker, i int) {
			pair := recorded[worker*each+i%each]
			must(doer.Do(ctx, pair.join...).Err())
			must(doer.Do(ctx, pair.finish...).Err())
		}
	}
	// Four workers send what 256 callers would, 64 joins and then their 64
	// finishes in a pipeline each: a finish goes after the reply to its join.
	const workers = 4
	const deep = pairsAtOnce / workers
	pipelined := func() float64 {
		return deep * rate(workers, lasting, func(worker, _ int) {
			pairs := recorded[worker*deep*each:]
			for _, step := range []func(steps) []any{func(s steps) []any { return s.join }, func(s steps) []any { return s.finish }} {
				_, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
					for i := range deep {
						pipe.Do(ctx, step(pairs[i*each])...)
					}
					return nil
				})
				must(err)
			}
		})
	}
	rates := interleave(rounds, []contender{
		{"fleetcall", func() float64 {
			before := group.Stats().Distributed
			all := rate(pairsAtOnce, lasting, func(worker, i int) { call(keys[worker*each+i%each]) })
			after := group.Stats().Distributed
			// A call that fell back sent no pair.
			return all * float64(after.Leaders-before.Leaders) / float64(after.Requests-before.Requests)
		}},
		{"plain", func() float64 { return rate(pairsAtOnce, lasting, bare(client)) }},
		{"auto-pipelined", func() float64 { return rate(pairsAtOnce, lasting, bare(automatic)) }},
		{"pipelined", pipelined},
	})
	t := table{
		title:   fmt.Sprintf("Calls with different keys a second, %d at once, one replica", pairsAtOnce),
		columns: []string{"", "a second", "fleetcall's share"},
	}
	fastest := "plain"
	for _, name := range []string{"fleetcall", "plain", "auto-pipelined", "pipelined"} {
		t.add(map[string]string{"fleetcall": "fleetcall"}[name]+map[bool]string{true: "bare join and finish, " + name}[name != "fleetcall"],
			perSecond(rates[name]), fmt.Sprintf("%.2f", rates["fleetcall"]/rates[name]))
		if name != "fleetcall" && rates[name] > rates[fastest] {
			fastest = name
		}
	}
	pairs := 0.0
	busy := usedBy(addr, 1, func() { pairs = pipelined() * lasting.Seconds() })
	b.facts.pairCPU = busy.cpu / pairs
	fallbacks := group.Stats().Distributed.Fallbacks
	t.note = fmt.Sprintf("%s calls of fleetcall fell back to running without Redis, and are not counted.", thousands(int(fallbacks)))
	s.tables = append(s.tables, t)
	s.ratio(fmt.Sprintf("different keys, %d at once", pairsAtOnce), rates["fleetcall"], rates[fastest], "bare, "+fastest, 0.7, true, perSecond)
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
