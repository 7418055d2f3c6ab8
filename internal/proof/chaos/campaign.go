// Package chaos runs a fleet of replicas as real processes, breaks what they
// depend on in every way that the protocol has an answer to, and lets
// internal/proof/history decide whether the promises were kept.
package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/internal/proof/history"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/netrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// Config says what to run. Everything that is left to chance follows from
// Seed: what the callers do, and which faults come in which order.
type Config struct {
	Seed uint64
	// Time is how long faults are injected.
	Time time.Duration
	// Rounds bounds how often each fault is injected; 0: as the time allows.
	Rounds int
	// Replicas are the processes without MaxAge, Keeping those with it.
	Replicas, Keeping int
	Callers           int      // of each replica
	Faults            []string // names; empty: all
	Broken            Broken   // how the first replica is broken
	Dir               string   // of the history; it must exist
	// Binary is the fleetcall program, whose database is killed as often as
	// Databases says.
	Binary    string
	Databases int
	// Clusters is how often a master of a Cluster is hit, in each way; on hosts also how often
	// one that sentinels watch is.
	Clusters int
	// Hosts: each replica runs on a host of its own. RunHosts sets it.
	Hosts bool
	// Mixed: some of the replicas on hosts are of the release before this one.
	Mixed bool
	// Skewed is the program that replicas on hosts run, Old that of the release before.
	Skewed, Old string
	Progress    func(string) `json:"-"`
}

// Result is what a campaign came to.
type Result struct {
	Rows    []Row
	History history.Report
	Redis   string // version
	Old     string // name of the release before, of a mixed fleet
	// Skipped are the faults that were to be injected and could not be, and what of the
	// machine each needs.
	Skipped map[string]string
	// Failures are the reasons for which the campaign has failed: promises
	// that were broken, callers that were hurt, bounds that were exceeded by
	// far, replicas that ended by themselves.
	Failures []string
}

const (
	namespace = "chaos"
	// keptAge is the MaxAge of the replicas that keep results.
	keptAge = 300 * time.Millisecond
)

// campaign is a running one.
type campaign struct {
	config  Config
	host    *rig.Host
	network *netrig.Network // nil: all run on this host
	hosts   []*netrig.Host  // of the replicas
	redis   *redisrig.Server
	clock   *redisrig.Clock // of redis; nil: the machine's
	admin   *redis.Client
	// leases asks for leases, also while Redis is down. A client that could
	// not connect too often goes on failing for a while when Redis is back.
	leases     *redis.Client
	tap        *tap
	places     []*place
	history    *history.Writer
	injections atomic.Uint64 // so many so far

	redisVersion string
	programs     []Row // what was measured of the program itself
}

// Run runs a campaign. Its error says that it could not be run; what it found
// is in the Result.
func Run(ctx context.Context, config Config) (result Result, err error) {
	redis.SetLogger(silence{}) // its errors are returned as well
	c := &campaign{config: config, host: &rig.Host{}}
	pulse := startPulse()
	err = c.run(ctx)
	pulse.close()
	if err != nil {
		return result, err
	}
	result.Redis, result.Skipped = c.redisVersion, c.skipped()
	records, err := history.Read(config.Dir)
	if err != nil {
		return result, err
	}
	records = pulse.insert(records)
	result.History = history.Check(records)
	result.Rows = append(measure(records, result.History), c.programs...)
	result.Failures = failures(result)
	return result, nil
}

// silence is a logger of go-redis.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// run injects the faults, and returns when every process is gone.
func (c *campaign) run(ctx context.Context) (err error) {
	defer rig.Recover(&err)
	defer c.host.Close()
	if c.history, err = history.Open(c.config.Dir, "driver"); err != nil {
		return err
	}
	defer func() { _ = c.history.Close() }()
	if c.config.Hosts {
		if c.network, err = netrig.Start(); err != nil {
			return err
		}
		c.redis = redisrig.Start(c.host, "--bind", "127.0.0.1", c.network.Own.IP(), "--protected-mode", "no")
	} else if redisrig.ClockMissing() == "" {
		c.redis, c.clock = redisrig.StartOnClock(c.host)
	} else {
		c.redis = redisrig.Start(c.host)
	}
	c.admin, c.leases = c.redis.Client(), c.redis.Client()
	if c.redisVersion, err = versionOf(ctx, c.admin); err != nil {
		return err
	}
	c.tap = startTap(c.admin)
	defer c.tap.close()
	defer c.abort()
	start := c.startReplicas
	if c.config.Hosts {
		start = c.startHosts
	}
	if err := start(); err != nil {
		return err
	}
	c.pause(ctx, time.Second)
	if err := c.inject(ctx); err != nil {
		return err
	}
	c.pause(ctx, time.Second)
	if err := errors.Join(ctx.Err(), c.stopReplicas()); err != nil {
		return err
	}
	if c.config.Clusters > 0 {
		c.progress("hitting one of a Cluster's masters")
		if err := c.hitMasters(ctx, c.config.Clusters); err != nil {
			return err
		}
		if c.config.Hosts {
			c.progress("hitting the servers that sentinels watch")
			if err := c.hitWatched(ctx, c.config.Clusters); err != nil {
				return err
			}
		}
	}
	if c.config.Databases == 0 {
		return nil
	}
	c.progress("killing the program's database")
	row, err := c.killDatabase(ctx, c.config.Databases)
	c.programs = append(c.programs, row)
	return err
}

func versionOf(ctx context.Context, client *redis.Client) (string, error) {
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`redis_version:(\S+)`).FindStringSubmatch(info)
	if found == nil {
		return "", errors.New("chaos: Redis does not say its version")
	}
	return found[1], nil
}

func (c *campaign) startReplicas() error {
	for i := range c.config.Replicas + c.config.Keeping {
		number := i + 1
		commands, err := startProxy(fmt.Sprintf("commands of r%d", number), c.redis.Addr)
		if err != nil {
			return err
		}
		c.host.Cleanup(commands.Stop)
		messages, err := startProxy(fmt.Sprintf("messages of r%d", number), c.redis.Addr)
		if err != nil {
			return err
		}
		c.host.Cleanup(messages.Stop)
		p := c.place(i, commands.Listen, messages.Listen)
		p.commands, p.messages = commands, messages
		if err := c.startAt(i, p); err != nil {
			return err
		}
	}
	return nil
}

// place returns where the replica with an index runs, which finds Redis at these addresses.
func (c *campaign) place(i int, commands, messages string) *place {
	p := &place{number: i + 1, config: workerConfig{
		Dir: c.config.Dir, Seed: c.config.Seed, Callers: c.config.Callers,
		Commands: commands, Messages: messages, Namespace: namespace,
	}}
	if i >= c.config.Replicas {
		p.config.Namespace, p.config.Prefix, p.config.MaxAge = namespace+"-kept", "kept-", keptAge
	}
	if i == 0 {
		p.config.Broken = c.config.Broken
	}
	return p
}

func (c *campaign) stopReplicas() error {
	errs := make([]error, len(c.places))
	var stopping sync.WaitGroup
	for i, p := range c.places {
		stopping.Go(func() { errs[i] = errors.Join(p.died(), p.stop()) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// abort ends what stopReplicas has not.
func (c *campaign) abort() {
	for _, p := range c.places {
		if p.proc != nil {
			p.kill()
		}
	}
}

// inject injects the faults one at a time, in rounds of random order, and at
// last several at once.
func (c *campaign) inject(ctx context.Context) error {
	began := time.Now()
	apart := c.config.Time * 3 / 4
	order := stream(c.config.Seed, "faults")
	faults := c.chosen(c.faults())
	for round := 1; c.config.Rounds == 0 || round <= c.config.Rounds; round++ {
		order.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, f := range faults {
			if time.Since(began) > apart && c.config.Rounds == 0 || ctx.Err() != nil {
				return c.severalAtOnce(ctx, began)
			}
			if err := c.once(ctx, f, order); err != nil {
				return err
			}
		}
		c.progress("%v: round %d is over", time.Since(began).Round(time.Second), round)
	}
	return c.severalAtOnce(ctx, began)
}

// once injects a fault and lets the fleet recover.
func (c *campaign) once(ctx context.Context, f fault, order *rand.Rand) error {
	random := split(order)
	if err := f.inject(ctx, c.episode(f, f.name), random); err != nil {
		return fmt.Errorf("chaos: %s: %w", f.name, err)
	}
	c.pause(ctx, f.calm+between(random, 0, 200*time.Millisecond))
	for _, p := range c.places {
		if err := p.died(); err != nil {
			return err
		}
	}
	return nil
}

// severalAtOnce injects faults of processes, of Redis, and of the network at
// the same time, each kind one after another.
func (c *campaign) severalAtOnce(ctx context.Context, began time.Time) error {
	if c.config.Hosts {
		return nil
	}
	c.progress("%v: several at once", time.Since(began).Round(time.Second))
	left := c.config.Time - time.Since(began)
	if c.config.Rounds > 0 {
		left = c.config.Time / 4
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	of := [][]fault{c.chosen(processFaults), c.chosen(redisFaults), c.chosen(networkFaults)}
	errs := make([]error, len(of))
	var injecting sync.WaitGroup
	for k, faults := range of {
		if len(faults) == 0 {
			continue
		}
		random := stream(c.config.Seed, fmt.Sprintf("several at once %d", k))
		injecting.Go(func() {
			defer rig.Recover(&errs[k])
			for ctx.Err() == nil && errs[k] == nil {
				f := faults[random.IntN(len(faults))]
				own := split(random)
				if err := f.inject(ctx, c.episode(f, several), own); err != nil {
					errs[k] = fmt.Errorf("chaos: %s, one of several faults: %w", f.name, err)
				}
				c.pause(ctx, between(own, 0, leaseTTL))
			}
		})
	}
	injecting.Wait()
	return errors.Join(errs...)
}

// pause returns after d, or when ctx ends.
func (c *campaign) pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (c *campaign) progress(format string, args ...any) {
	if c.config.Progress != nil {
		c.config.Progress(fmt.Sprintf(format, args...))
	}
}
