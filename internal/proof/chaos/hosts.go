package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
	"github.com/fleetcall/fleetcall/internal/rig/netrig"
)

// A fleet on hosts has each replica in a network namespace of its own, linked by a bridge to
// the one in which Redis runs and faults are injected. What a host drops, nobody is told of:
// connections stay open on both sides until TCP or a timeout gives them up. The hosts' clocks
// differ by hours.

// hostsVariable holds the Config in the environment of the process that runs a campaign in
// namespaces.
const hostsVariable = "FLEETCALL_CHAOS_HOSTS"

// resultFile is where that process writes its Result, in the history's directory.
const resultFile = "result.json"

// hostFaults are what is injected into a fleet on hosts.
var hostFaults = []fault{
	{name: "hosts: none", most: 1.05, bound: withinTimeout, inject: injectNothing},
	cut("hosts: cut off from Redis, less than a lease", bothWays, leaseTTL/4, leaseTTL*3/4),
	cut("hosts: cut off from Redis, more than a lease", bothWays, leaseTTL*3/2, 3*leaseTTL),
	cut("hosts: commands dropped, less than a lease", toRedis, leaseTTL/4, leaseTTL*3/4),
	cut("hosts: commands dropped, more than a lease", toRedis, leaseTTL*3/2, 3*leaseTTL),
	cut("hosts: replies dropped, less than a lease", fromRedis, leaseTTL/4, leaseTTL*3/4),
	cut("hosts: replies dropped, more than a lease", fromRedis, leaseTTL*3/2, 3*leaseTTL),
	{
		name: "hosts: Redis' host gone", effects: history.Effects{LosesKeys: true, Unusable: true, LosesMessages: true}, most: 2.5, calm: recovering,
		bound: arriving(withinBoth), inject: loseRedisHost,
	},
	{
		name: "hosts: all replicas replaced in turn", effects: history.Effects{Kills: true}, most: 1.25, calm: leaseTTL / 2,
		bound: bound{measure: waiters, limit: grace, text: "grace period"}, inject: replaceAll,
	},
}

var bothWays, toRedis, fromRedis = []netrig.Direction{netrig.In, netrig.Out}, []netrig.Direction{netrig.Out}, []netrig.Direction{netrig.In}

// cut is a fault that drops what goes between one replica's host and Redis, for a time.
func cut(name string, of []netrig.Direction, low, high time.Duration) fault {
	return fault{
		name: name, effects: history.Effects{Unusable: true, LosesMessages: true}, most: 1.6, calm: recovering, bound: withinBoth,
		inject: func(ctx context.Context, e episode, random *rand.Rand) error {
			p := e.places[random.IntN(len(e.places))]
			end := e.begin(p.present(), held{})
			if err := p.host.Drop(of...); err != nil {
				return err
			}
			took := between(random, low, high)
			e.pause(ctx, took)
			err := p.host.Heal()
			// TCP sends again what was dropped at ever longer intervals: it may be as long again
			// until a connection that was kept is of use.
			e.pause(ctx, took)
			return errors.Join(err, end())
		},
	}
}

// loseRedisHost has Redis' host be gone without a word, and an empty one take its address.
func loseRedisHost(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	err := e.network.Own.Drop(bothWays...)
	e.redis.Kill()
	e.pause(ctx, between(random, leaseTTL, 3*leaseTTL))
	e.redis.Restart()
	err = errors.Join(err, e.network.Own.Heal())
	e.pause(ctx, 2*leaseTTL) // what was sent to the host that is gone is sent again, and refused
	return errors.Join(err, end())
}

// replaceAll replaces one replica after another, as a rolling update does. In a fleet of two
// releases each replica is of the other one afterwards.
func replaceAll(ctx context.Context, e episode, _ *rand.Rand) error {
	for _, p := range e.places {
		end := e.begin(p.present(), held{})
		if err := errors.Join(p.died(), p.stop()); err != nil {
			return err
		}
		p.update()
		if err := errors.Join(p.start(), end()); err != nil {
			return err
		}
		e.pause(ctx, leaseTTL/2)
	}
	return nil
}

// startHosts starts the replicas, each on its host.
func (c *campaign) startHosts() error {
	_, port, err := net.SplitHostPort(c.redis.Addr)
	if err != nil {
		return err
	}
	addr := net.JoinHostPort(c.network.Own.IP(), port)
	for i := range c.config.Replicas + c.config.Keeping {
		host, err := c.network.Host()
		if err != nil {
			return err
		}
		c.hosts = append(c.hosts, host)
		if err := c.startAt(i, c.place(i, addr, addr)); err != nil {
			return err
		}
	}
	return nil
}

// startAt starts a replica, on the host with an index if there are hosts.
func (c *campaign) startAt(i int, p *place) error {
	c.places = append(c.places, p)
	if c.network == nil {
		return p.start()
	}
	p.host = c.hosts[i]
	skew := skews[i%len(skews)]
	p.skewedBy(c.config.Skewed, skew)
	if p.old = c.config.Old; i%2 == 1 {
		p.update()
	}
	if err := p.start(); err != nil {
		return err
	}
	return p.checkClock(skew)
}

// RunHosts runs a campaign whose replicas are on hosts of their own, in network namespaces
// that end with it. The program must call ServeReplica first.
func RunHosts(ctx context.Context, config Config) (result Result, err error) {
	config.Hosts = true
	module, err := goEnv(ctx, "", os.Environ(), "GOMOD")
	if err != nil {
		return result, err
	}
	if config.Skewed, err = buildSkewed(ctx, filepath.Dir(module), config.Dir); err != nil {
		return result, err
	}
	old := ""
	if config.Mixed {
		if config.Old, old, err = buildOld(ctx, config.Dir); err != nil {
			return result, err
		}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return result, err
	}
	path, err := os.Executable()
	if err != nil {
		return result, err
	}
	child := exec.CommandContext(ctx, path)
	child.Env = append(os.Environ(), hostsVariable+"="+string(text))
	child.Stderr, child.Stdout = os.Stderr, os.Stderr
	netrig.IntoNamespaces(child)
	if err := child.Run(); err != nil {
		return result, fmt.Errorf("chaos: running the hosts: %w", err)
	}
	text, err = os.ReadFile(filepath.Join(config.Dir, resultFile))
	if err != nil {
		return result, err
	}
	err = json.Unmarshal(text, &result)
	result.Old = old
	return result, err
}

// serveHosts is what the process in the namespaces does.
func serveHosts(text string) error {
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	config.Progress = func(text string) { _, _ = fmt.Fprintln(os.Stderr, text) }
	result, err := Run(context.Background(), config)
	if err != nil {
		return err
	}
	left, err := children()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		result.Failures = append(result.Failures, fmt.Sprintf("processes are left: %v", left))
	}
	encoded, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(config.Dir, resultFile), encoded, 0o600)
}
