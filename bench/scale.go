package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// measureScale fills the report's section on large fleets: b.replicas Fleets in this
// process, each with a client and connections of its own, and a Redis of its own for each
// figure.
func measureScale(b *bench) {
	redis.SetLogger(silence{}) // it tells of each connection that is cut
	s := b.section("scale", "Large fleets")
	measureStart(b, s)
	measureHotKey(b, s)
	measureCut(b, s)
	measureLongFlight(b, s)
	measureForgets(b, s)
	measureManyKeys(b, s)
	growLargePayload(b, s)
}

// crowd is a large fleet in this process.
type crowd struct {
	addr     string
	observer *redis.Client
	fleets   []*distributed.Fleet
	groups   []*distributed.Group[[]byte]
	stop     []func()

	fail atomic.Pointer[error] // the first of a call
}

// startCrowd starts a Redis and so many replicas, which are connected and subscribed when
// it returns.
func startCrowd(replicas int) *crowd {
	addr, stop := startRedis()
	c := startCrowdOn(addr, replicas)
	c.stop = append(c.stop, stop)
	return c
}

func startCrowdOn(addr string, replicas int) *crowd {
	c := &crowd{addr: addr, observer: newObserver(addr)}
	var leave []func()
	for range replicas {
		client := newClient(addr)
		// What is measured is how a fleet gets by while flights last: on a small machine, it
		// takes tens of seconds to have a large fleet wait.
		fleet := value(distributed.Open(client, distributed.WithFlightTimeout(10*time.Minute), distributed.WithLogger(slog.New(slog.DiscardHandler))))
		c.fleets, c.groups = append(c.fleets, fleet), append(c.groups, value(distributed.NewGroup[[]byte](fleet, "bench")))
		leave = append(leave, func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = fleet.Close(ctx)
			_ = client.Close()
		})
	}
	c.stop = []func(){func() {
		var leaving sync.WaitGroup
		for _, stop := range leave {
			leaving.Go(stop)
		}
		leaving.Wait()
		_ = c.observer.Close()
	}}
	var warm sync.WaitGroup
	for i := range c.groups {
		warm.Go(func() { c.call(i, fmt.Sprintf("warm-up-%d", i), nothing) })
	}
	warm.Wait()
	await(replicas, func() int { return c.subscribers(":control") })
	time.Sleep(10 * settle) // what they send by themselves, once they are connected
	return c
}

func (c *crowd) close() {
	for _, stop := range c.stop {
		stop()
	}
	if err := c.fail.Load(); err != nil {
		must(*err)
	}
}

// call calls for a key at one replica.
func (c *crowd) call(replica int, key string, fn func(context.Context) ([]byte, error)) {
	if _, _, err := c.groups[replica].Do(background(), key, fn); err != nil {
		err = fmt.Errorf("a caller of a large fleet got an error: %w", err)
		c.fail.CompareAndSwap(nil, &err)
	}
}

// counts sums what the replicas have counted, of calls that have returned.
func (c *crowd) counts() (fallbacks, takeovers, lost int, errors map[string]int) {
	errors = map[string]int{}
	for _, fleet := range c.fleets {
		st := fleet.Stats()
		fallbacks += int(st.Distributed.Fallbacks)
		takeovers += int(st.Distributed.Takeovers)
		lost += int(st.Distributed.LeaseLost)
		for kind, n := range st.Redis.ErrorsBy {
			errors[kind] += int(n)
		}
	}
	return fallbacks, takeovers, lost, errors
}

// text is a count of errors by kind.
func text(errors map[string]int) string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(errors)) {
		all = append(all, kind+" "+thousands(errors[kind]))
	}
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// commandsOf returns how often clients sent each command since the last CONFIG RESETSTAT,
// scripts as evalsha or eval. What scripts call counts, too, under its own name.
func (c *crowd) commandsOf() map[string]int {
	all := map[string]int{}
	for line := range strings.SplitSeq(value(c.observer.Info(background(), "commandstats").Result()), "\r\n") {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok {
			continue
		}
		calls, _, _ := strings.Cut(rest, ",")
		all[name] = value(strconv.Atoi(calls))
	}
	return all
}

// ofClients sums the commands that replicas alone send, and no script calls.
func ofClients(commands map[string]int) (n int) {
	for _, name := range []string{"evalsha", "eval", "script|load", "script|exists", "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe", "ping"} {
		n += commands[name]
	}
	return n
}

func (c *crowd) resetCommands() { must(c.observer.ConfigResetStat(background()).Err()) }

// subscribers returns how many clients listen to channels with this part in their names.
func (c *crowd) subscribers(part string) (n int) {
	channels := value(c.observer.PubSubChannels(background(), "*"+part+"*").Result())
	for len(channels) > 0 {
		some := channels[:min(1000, len(channels))]
		for _, clients := range value(c.observer.PubSubNumSub(background(), some...).Result()) {
			n += int(clients)
		}
		channels = channels[len(some):]
	}
	return n
}

// await waits until a count has reached n. It gives up after a while: then what is measured
// shows that.
func await(n int, count func() int) {
	for end := time.Now().Add(20 * time.Second); count() < n && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
}

// measureStart starts the whole fleet at once, first on a Redis that has no script, then, as
// each deploy does, on one that has them.
func measureStart(b *bench, s *section) {
	addr, stop := startRedis()
	defer stop()
	t := table{
		Title:   fmt.Sprintf("%s replicas start at once, and each makes one call", thousands(b.replicas)),
		Columns: []string{"", "scripts sent in full", "commands"},
	}
	for _, has := range []bool{false, true} {
		observer := newObserver(addr)
		must(observer.ConfigResetStat(background()).Err())
		_ = observer.Close()
		c := startCrowdOn(addr, b.replicas)
		commands := c.commandsOf()
		c.close()
		full := commands["script|load"] + commands["eval"]
		t.add(map[bool]string{false: "Redis has no script", true: "Redis has the scripts"}[has], thousands(full), thousands(ofClients(commands)))
		if has {
			s.limit(fmt.Sprintf("start of %d replicas on a Redis that has the scripts: scripts sent", b.replicas), float64(full), 0)
		}
	}
	s.Tables = append(s.Tables, t)
}
