package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// kind says what a fault is of. Of each kind, one is injected at a time.
type kind int

const (
	ofProcess kind = iota
	ofRedis
	ofNetwork
	kinds
)

// several is the row of the faults that were injected at the same time as
// others.
const several = "several at once"

// fault is one row of the table.
type fault struct {
	name    string
	kind    kind
	effects history.Effects
	bound   bound
	calm    time.Duration // after it, for the fleet to recover
	inject  func(context.Context, episode, *rand.Rand) error
}

// bound is what the protocol promises of a fault: how long those who waited at
// its begin wait on for nothing, by what they wait for.
type bound struct {
	measure measurement
	limit   time.Duration
	text    string
	// arriving is the same for callers that come while it lasts; 0: nothing.
	arriving time.Duration
}

// recovering is how long the fleet needs until the breaker lets a call through
// to Redis again.
const recovering = 1100 * time.Millisecond

// longestDelay is by how much messages and replies are delayed at most.
const longestDelay = 500 * time.Millisecond

// longestSpoiled is how long messages or replies are spoiled at most.
const longestSpoiled = 2 * leaseTTL

var (
	withinLease = bound{measure: waiters, limit: leaseTTL, text: "lease TTL"}
	// A lease that was forged is one more to wait for.
	withinTwo     = bound{measure: waiters, limit: 2 * leaseTTL, text: "2 lease TTLs"}
	withinTimeout = bound{measure: waiters, limit: redisTimeout, text: "Redis timeout"}
	whileItLasts  = bound{measure: waiters, limit: longestSpoiled + redisTimeout, text: "its end + Redis timeout"}
	withinBoth    = bound{measure: waiters, limit: leaseTTL + redisTimeout, text: "lease TTL + Redis timeout"}
)

// faults are all that is injected into the library's replicas.
var faults = []fault{
	{
		name: "leader killed", kind: ofProcess, effects: history.Effects{Kills: true}, calm: leaseTTL / 2,
		bound: bound{measure: takeover, limit: leaseTTL, text: "lease TTL + 1 round trip"}, inject: killLeader,
	},
	{
		name: "leader stopped", kind: ofProcess, effects: history.Effects{Stops: true}, calm: leaseTTL / 2,
		bound: bound{measure: takeover, limit: leaseTTL, text: "lease TTL + 1 round trip"}, inject: stopLeader,
	},
	{
		name: "follower stopped", kind: ofProcess, effects: history.Effects{Stops: true}, calm: leaseTTL / 2,
		bound: withinLease, inject: stopFollower,
	},
	{
		name: "leader shut down", kind: ofProcess, effects: history.Effects{Kills: true}, calm: leaseTTL / 2,
		bound: bound{measure: waiters, limit: grace, text: "grace period"}, inject: shutDownLeader,
	},
	{
		name: "Redis killed", kind: ofRedis, calm: recovering,
		effects: history.Effects{LosesKeys: true, Unusable: true, LosesMessages: true},
		bound:   arriving(withinTimeout), inject: killRedis,
	},
	{
		name: "Redis frozen", kind: ofRedis, effects: history.Effects{Unusable: true, LosesMessages: true}, calm: recovering,
		bound: arriving(withinBoth), inject: freezeRedis,
	},
	{
		name: "Redis full", kind: ofRedis, effects: history.Effects{Unreliable: true, LosesMessages: true}, calm: recovering,
		bound: arriving(withinBoth), inject: fillRedis,
	},
	{
		name: "Redis read-only", kind: ofRedis, effects: history.Effects{Unreliable: true, LosesMessages: true}, calm: recovering,
		bound: arriving(withinBoth), inject: demoteRedis,
	},
	{name: "scripts flushed", kind: ofRedis, bound: withinTimeout, inject: flushScripts},
	{
		name: "subscriptions cut", kind: ofRedis, effects: history.Effects{LosesMessages: true}, calm: leaseTTL / 2,
		bound: withinTimeout, inject: cutConnections("pubsub"),
	},
	{
		name: "connections cut", kind: ofRedis, effects: history.Effects{Unreliable: true}, calm: recovering,
		bound: withinTimeout, inject: cutConnections("normal"),
	},
	{
		name: "garbage in keys", kind: ofRedis, effects: history.Effects{Garbage: true, LosesKeys: true}, calm: leaseTTL / 2,
		bound: withinTwo, inject: spoilKeys,
	},
	{
		name: "garbage in messages", kind: ofRedis, effects: history.Effects{Garbage: true}, calm: leaseTTL / 2,
		bound: withinTimeout, inject: spoilMessages,
	},
	{
		name: "messages delayed", kind: ofNetwork, effects: history.Effects{LosesMessages: true, Delay: longestDelay}, calm: leaseTTL / 2,
		bound: withinLease, inject: spoilMessagesOfOne("latency", "latency", 200, int(longestDelay.Milliseconds())),
	},
	{
		name: "messages cut short", kind: ofNetwork, effects: history.Effects{LosesMessages: true}, calm: leaseTTL / 2,
		bound: whileItLasts, inject: spoilMessagesOfOne("limit_data", "bytes", 1, 400),
	},
	{
		name: "messages lost", kind: ofNetwork, effects: history.Effects{LosesMessages: true}, calm: leaseTTL / 2,
		bound: withinLease, inject: spoilMessagesOfOne("timeout", "timeout", 0, 1),
	},
	{
		name: "replies delayed", kind: ofNetwork, effects: history.Effects{Unusable: true}, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("latency", "latency", 200, int(longestDelay.Milliseconds())),
	},
	{
		name: "replies cut short", kind: ofNetwork, effects: history.Effects{Unreliable: true}, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("limit_data", "bytes", 1, 400),
	},
	{
		name: "replies lost", kind: ofNetwork, effects: history.Effects{Unusable: true}, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("timeout", "timeout", 0, 1),
	},
	{
		name: "connections reset", kind: ofNetwork, effects: history.Effects{Unreliable: true}, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("reset_peer", "timeout", 0, 50),
	},
}

// arriving adds the bound of callers that come while Redis cannot be used.
func arriving(b bound) bound {
	b.arriving = redisTimeout
	return b
}

// Names returns the names of all faults.
func Names() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

func (c *campaign) chosen() []fault {
	return slices.DeleteFunc(slices.Clone(faults), func(f fault) bool {
		return len(c.config.Faults) > 0 && !slices.Contains(c.config.Faults, f.name)
	})
}

// episode is one injection of a fault.
type episode struct {
	*campaign
	fault fault
	row   string
}

func (c *campaign) episode(f fault, row string) episode { return episode{c, f, row} }

// begin writes down that the fault begins. end writes down that it is undone.
func (e episode) begin(target string, on held) (end func() error) {
	record := history.Record{Kind: history.FaultBegin, Fault: e.row, Target: target, Key: on.key, Flight: on.flight, Effects: &e.fault.effects}
	_, err := e.history.Write(record)
	return func() error {
		record.Kind, record.Effects = history.FaultEnd, nil
		_, endErr := e.history.Write(record)
		return errors.Join(err, endErr)
	}
}

// held is a lease that somebody waits for.
type held struct {
	key, flight string
	leader      *place
}

var leaseValue = regexp.MustCompile(`^1(\S{22}) \d+ \d+ (\S+)\n`)

// leader finds a flight that has followers, at a random moment of its life.
// When Redis does not tell of one, it returns any place and no flight.
func (c *campaign) leader(ctx context.Context, random *rand.Rand) held {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	wait := between(random, 0, leaseTTL/2)
	random = split(random)
	anyone := held{leader: c.places[random.IntN(len(c.places))]}
	for ctx.Err() == nil {
		h, ok := c.heldLease(ctx, random)
		if !ok {
			c.pause(ctx, 2*time.Millisecond)
			continue
		}
		c.pause(ctx, wait)
		if again, ok := c.lease(ctx, h.leader.config, h.key); ok && again.flight == h.flight {
			return again
		}
	}
	return anyone
}

func (c *campaign) heldLease(ctx context.Context, random *rand.Rand) (held, bool) {
	config := c.places[random.IntN(len(c.places))].config
	return c.lease(ctx, config, config.Prefix+fmt.Sprintf("hot-%d", random.IntN(4)))
}

// lease reads the lease of a key.
func (c *campaign) lease(ctx context.Context, config workerConfig, key string) (held, bool) {
	text, err := c.leases.Get(ctx, config.Namespace+":{"+key+"}:lease").Result()
	found := leaseValue.FindStringSubmatch(text)
	if err != nil || found == nil {
		return held{}, false
	}
	for _, p := range c.places {
		if p.present() == found[2] {
			return held{key, found[1], p}, true
		}
	}
	return held{}, false
}

func killLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	end := e.begin(on.leader.present(), on)
	on.leader.kill()
	e.pause(ctx, between(random, 0, leaseTTL))
	return errors.Join(on.leader.start(), end())
}

func stopLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	return e.stop(ctx, on.leader, on, random)
}

// stopFollower stops any replica but the leader, for up to longer than an
// outcome waits for it in Redis.
func stopFollower(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	others := slices.DeleteFunc(slices.Clone(e.places), func(p *place) bool {
		return p == on.leader || p.config.Namespace != on.leader.config.Namespace
	})
	if len(others) == 0 {
		return nil
	}
	return e.stop(ctx, others[random.IntN(len(others))], on, random)
}

func (e episode) stop(ctx context.Context, p *place, on held, random *rand.Rand) error {
	end := e.begin(p.present(), on)
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	e.pause(ctx, between(random, leaseTTL+300*time.Millisecond, 3*leaseTTL))
	return errors.Join(p.signal(syscall.SIGCONT), end())
}

func shutDownLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	end := e.begin(on.leader.present(), on)
	if err := errors.Join(on.leader.died(), on.leader.stop()); err != nil {
		return err
	}
	return errors.Join(on.leader.start(), end())
}

func killRedis(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	e.redis.Kill()
	e.pause(ctx, between(random, 100*time.Millisecond, 1200*time.Millisecond))
	e.redis.Restart()
	return end()
}

func freezeRedis(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	e.redis.Freeze()
	e.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	e.redis.Thaw()
	return end()
}

func fillRedis(ctx context.Context, e episode, random *rand.Rand) error {
	return e.configured(ctx, random,
		[]any{"CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"},
		[]any{"CONFIG", "SET", "maxmemory", "0"})
}

// demoteRedis makes Redis the read-only replica of a server that is not there.
func demoteRedis(ctx context.Context, e episode, random *rand.Rand) error {
	port, err := loopback.FreePort()
	if err != nil {
		return err
	}
	return e.configured(ctx, random,
		[]any{"REPLICAOF", "127.0.0.1", strconv.Itoa(port)},
		[]any{"REPLICAOF", "NO", "ONE"})
}

// configured sends a command, and after a while the one that undoes it.
func (e episode) configured(ctx context.Context, random *rand.Rand, do, undo []any) error {
	end := e.begin("", held{})
	if err := e.admin.Do(context.Background(), do...).Err(); err != nil {
		return err
	}
	e.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	return errors.Join(e.admin.Do(context.Background(), undo...).Err(), end())
}

func flushScripts(_ context.Context, e episode, _ *rand.Rand) error {
	end := e.begin("", held{})
	return errors.Join(e.admin.ScriptFlush(context.Background()).Err(), end())
}

// cutConnections closes all connections of a type, as CLIENT KILL names it.
func cutConnections(of string) func(context.Context, episode, *rand.Rand) error {
	return func(_ context.Context, e episode, _ *rand.Rand) error {
		end := e.begin("", held{})
		err := e.admin.Do(context.Background(), "CLIENT", "KILL", "TYPE", of, "SKIPME", "yes").Err()
		return errors.Join(err, end())
	}
}

// spoilMessagesOfOne spoils what Redis publishes to one replica.
func spoilMessagesOfOne(toxic, attribute string, low, high int) func(context.Context, episode, *rand.Rand) error {
	return func(ctx context.Context, e episode, random *rand.Rand) error {
		p := e.places[random.IntN(len(e.places))]
		return e.spoil(ctx, p, p.messages, toxic, map[string]int{attribute: low + random.IntN(high-low)}, random)
	}
}

// spoilRepliesOfOne spoils what Redis answers to one replica. The commands
// arrive and run.
func spoilRepliesOfOne(toxic, attribute string, low, high int) func(context.Context, episode, *rand.Rand) error {
	return func(ctx context.Context, e episode, random *rand.Rand) error {
		p := e.places[random.IntN(len(e.places))]
		return e.spoil(ctx, p, p.commands, toxic, map[string]int{attribute: low + random.IntN(high-low)}, random)
	}
}

func (e episode) spoil(ctx context.Context, p *place, way proxy, toxic string, attributes map[string]int, random *rand.Rand) error {
	end := e.begin(p.present(), held{})
	undo, err := way.spoil(toxic, attributes)
	if err != nil {
		return err
	}
	e.pause(ctx, between(random, leaseTTL/2, longestSpoiled))
	return errors.Join(undo(), end())
}
