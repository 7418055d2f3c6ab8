package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// keysOfCut are the keys for which each replica waits when its subscription is cut.
const keysOfCut = 200

// measureCut cuts the subscriptions of half of the fleet while each waits for many keys,
// which one replica more leads.
func measureCut(b *bench, s *section) {
	followers, keys := max(b.replicas/2, 1), keysOfCut
	if b.quick {
		keys = 20
	}
	c := startCrowd(followers + 1)
	defer c.close()
	var executions atomic.Int64
	end := make(chan struct{})
	fn := func(context.Context) ([]byte, error) {
		executions.Add(1)
		<-end
		return []byte("result"), nil
	}
	var calls sync.WaitGroup
	for key := range keys {
		calls.Go(func() { c.call(0, fmt.Sprintf("cut-%d", key), fn) })
	}
	await(keys, func() int { return int(executions.Load()) })
	for i := range followers {
		for key := range keys {
			calls.Go(func() { c.call(1+i, fmt.Sprintf("cut-%d", key), fn) })
		}
		if i%10 == 9 {
			await((1+i)*keys, func() int { return c.subscribers("cut-") }) // a fleet's callers do not come at one moment
		}
	}
	await(followers*keys, func() int { return c.subscribers("cut-") })
	time.Sleep(time.Second) // each looks once when it is subscribed
	before := executions.Load()
	c.resetCommands()
	must(c.observer.Do(background(), "CLIENT", "KILL", "TYPE", "pubsub").Err())
	time.Sleep(time.Second)
	await(followers*keys, func() int { return c.subscribers("cut-") })
	time.Sleep(time.Second)
	commands := c.commandsOf()
	ran := executions.Load()
	close(end)
	calls.Wait()
	fell, took, lost, failed := c.counts()
	each := float64(commands["evalsha"]+commands["eval"]+commands["subscribe"]) / float64(followers*keys)
	name := fmt.Sprintf("subscriptions of %d replicas cut, %d keys each", followers, keys)
	s.limit(name+": executions", float64(ran), float64(keys))
	s.limit("… commands for each replica and key", each, 3)
	s.Tables = append(s.Tables, table{
		Title:   "A cut: " + name,
		Columns: []string{"executions before", "after the cut", "fell back", "took over", "leases lost", "scripts", "SUBSCRIBE", "for each replica and key", "errors of Redis, by kind"},
		Rows: [][]string{{
			thousands(int(before)), thousands(int(ran)), thousands(fell), thousands(took), thousands(lost),
			thousands(commands["evalsha"] + commands["eval"]), thousands(commands["subscribe"]), count(each), text(failed),
		}},
	})
}

// measureLongFlight has half of the fleet follow a flight that outlives its lease four
// times, and counts how often they look what has become of it.
func measureLongFlight(b *bench, s *section) {
	followers, lasts := max(b.replicas/2, 1), 13*time.Second
	if b.quick {
		lasts = 4 * time.Second
	}
	c := startCrowd(followers + 1)
	defer c.close()
	var executions atomic.Int64
	fly := func(lasts time.Duration) {
		var calls sync.WaitGroup
		began := make(chan struct{})
		fn := func(context.Context) ([]byte, error) {
			if executions.Add(1) == 1 {
				close(began)
			}
			time.Sleep(lasts)
			return nil, nil
		}
		calls.Go(func() { c.call(0, "long", fn) })
		<-began
		for i := range followers {
			calls.Go(func() { c.call(1+i, "long", fn) })
		}
		calls.Wait()
	}
	fly(time.Second) // from now on they are subscribed
	executions.Store(0)
	m := startMonitor(c.addr)
	fly(lasts)
	peeks, others := 0, 0
	for _, command := range m.stop() {
		switch {
		case isPeek(command):
			peeks++
		case strings.EqualFold(command[0], "evalsha"):
			others++
		}
	}
	name := fmt.Sprintf("one flight of %v, %d replicas follow", lasts, followers)
	s.limit(name+": peeks", float64(peeks), 0)
	s.Tables = append(s.Tables, table{
		Title:   "A long flight: " + name + ", the lease TTL is " + leaseTTL.String(),
		Columns: []string{"executions", "peeks", "other scripts"},
		Rows:    [][]string{{thousands(int(executions.Load())), thousands(peeks), thousands(others)}},
	})
}

// isPeek tells a peek from other steps: its second key is the result of a flight.
func isPeek(command []string) bool {
	return strings.EqualFold(command[0], "evalsha") && len(command) > 4 && strings.Contains(command[4], ":result:")
}
