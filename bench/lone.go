package main

import (
	"context"
	"fmt"
	"time"
)

func nothing(context.Context) ([]byte, error) { return nil, nil }

// measureLone compares a call that has nobody to merge with, to the bare round
// trip of the join it sends, on a client of the same settings.
func measureLone(b *bench) {
	s := b.section("lone", "A lone caller")
	calls, rounds := 300, b.rounds(25)
	if b.quick {
		calls = 50
	}
	us := startBeside()
	defer us.close()
	recorded := recordSteps(us.addr, us.call, calls)

	// Each has its turn for a long round: a call is faster or slower by as much
	// as is measured here, according to what the connections did a moment before,
	// and those after a garbage collection have their memory to get anew.
	next := 0
	ourCall := func(int) {
		next++
		us.call(fmt.Sprintf("lone-%d", next))
	}
	join := func(i int) { must(us.client.Do(us.ctx, recorded[i].join...).Err()) }
	ping := func(int) { must(us.client.Ping(us.ctx).Err()) }
	finish := func(i int) { must(us.client.Do(us.ctx, recorded[i].finish...).Err()) }
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
	oneAfterAnother := func(call func(i int)) func() float64 { return func() float64 { return inARow(calls, call) } }
	var ours, bare, pings []float64
	const ourApart, bareApart, ourRow, bareRow = "fleetcall, apart", "bare, apart", "fleetcall, in a row", "bare, in a row"
	const pingApart, pingRow = "PING, apart", "PING, in a row"
	took := interleave(rounds, []contender{
		{ourApart, apart(&ours, ourCall, func(int) {})}, // it sends its finish itself, after the call
		{bareApart, apart(&bare, join, finish)},
		{pingApart, apart(&pings, ping, func(int) {})},
		{pingRow, oneAfterAnother(ping)},
		{ourRow, oneAfterAnother(ourCall)},
		{bareRow, oneAfterAnother(join)},
	})
	s.ratio("lone caller, p50", took[ourApart], took[bareApart], "bare round trip", 1.3, false, microseconds)
	s.ratio("lone caller, p50", took[ourApart], took[pingApart], "bare PING", 1.15, false, microseconds)

	t := table{Title: "A lone caller", Columns: []string{"", "calls 1 ms apart, p50", "p99", "one after another, mean"}}
	t.add("fleetcall", microseconds(took[ourApart]), microseconds(quantile(ours, 0.99)), microseconds(took[ourRow]))
	t.add("bare join", microseconds(took[bareApart]), microseconds(quantile(bare, 0.99)), microseconds(took[bareRow]))
	t.add("bare PING", microseconds(took[pingApart]), microseconds(quantile(pings, 0.99)), microseconds(took[pingRow]))
	t.Note = "One after another, each call meets the finish of the one before it; the bare join has no finish."
	s.Tables = append(s.Tables, t)
}

// inARow returns the mean time of calls that come one after another, in nanoseconds.
func inARow(calls int, call func(i int)) float64 {
	return perOperation(calls, func() {
		for i := range calls {
			call(i)
		}
	})
}
