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
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// A fleet on hosts has each replica in a network namespace of its own, linked by a bridge to
// the one in which Redis runs and faults are injected. What a host drops, nobody is told of:
// connections stay open on both sides until TCP or a timeout gives them up. The hosts' clocks
// differ by hours.

// redisHost is the address of Redis' host on the bridge.
const redisHost = "10.77.0.1"

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

// chains are those of a host's packet filter, from which direction of its traffic follows.
type chains []string

var bothWays, toRedis, fromRedis = chains{"INPUT", "OUTPUT"}, chains{"OUTPUT"}, chains{"INPUT"}

// cut is a fault that drops what goes between one replica's host and Redis, for a time.
func cut(name string, of chains, low, high time.Duration) fault {
	return fault{
		name: name, effects: history.Effects{Unusable: true, LosesMessages: true}, most: 1.6, calm: recovering, bound: withinBoth,
		inject: func(ctx context.Context, e episode, random *rand.Rand) error {
			p := e.places[random.IntN(len(e.places))]
			end := e.begin(p.present(), held{})
			for _, chain := range of {
				if err := command("ip", "netns", "exec", p.host, "iptables", "-A", chain, "-j", "DROP"); err != nil {
					return err
				}
			}
			took := between(random, low, high)
			e.pause(ctx, took)
			err := command("ip", "netns", "exec", p.host, "iptables", "-F")
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
	err := errors.Join(
		command("iptables", "-A", "INPUT", "-i", bridge, "-j", "DROP"),
		command("iptables", "-A", "OUTPUT", "-o", bridge, "-j", "DROP"))
	e.redis.Kill()
	e.pause(ctx, between(random, leaseTTL, 3*leaseTTL))
	e.redis.Restart()
	err = errors.Join(err, command("iptables", "-F"))
	e.pause(ctx, 2*leaseTTL) // what was sent to the host that is gone is sent again, and refused
	return errors.Join(err, end())
}

// replaceAll replaces one replica after another, as a rolling update does.
func replaceAll(ctx context.Context, e episode, _ *rand.Rand) error {
	for _, p := range e.places {
		end := e.begin(p.present(), held{})
		if err := errors.Join(p.died(), p.stop()); err != nil {
			return err
		}
		if err := errors.Join(p.start(), end()); err != nil {
			return err
		}
		e.pause(ctx, leaseTTL/2)
	}
	return nil
}

const bridge = "fleetcall0"

// command runs a command of the system.
func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("chaos: %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

// each runs each line as a command.
func each(lines ...string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		if err := command(words[0], words[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// prepareBridge makes what the hosts of replicas are linked to, in this process' own namespaces.
func prepareBridge() error {
	return each(
		"mkdir -p /run/netns", "mount -t tmpfs tmpfs /run/netns", // names of namespaces, which end with this process
		"ip link set lo up", "ip link add "+bridge+" type bridge", "ip addr add "+redisHost+"/24 dev "+bridge, "ip link set "+bridge+" up")
}

// prepareHost makes the host of a replica, and returns its name.
func prepareHost(number int) (host string, err error) {
	host = fmt.Sprintf("r%d", number)
	return host, each(
		"ip netns add "+host,
		"ip link add v-"+host+" type veth peer name eth0 netns "+host,
		"ip link set v-"+host+" master "+bridge+" up",
		fmt.Sprintf("ip -n %s addr add 10.77.0.%d/24 dev eth0", host, 10+number),
		"ip -n "+host+" link set eth0 up", "ip -n "+host+" link set lo up")
}

// startHosts starts the replicas, each on its host.
func (c *campaign) startHosts() error {
	_, port, err := net.SplitHostPort(c.redis.Addr)
	if err != nil {
		return err
	}
	addr := net.JoinHostPort(redisHost, port)
	for i := range c.config.Replicas + c.config.Keeping {
		host, err := prepareHost(i + 1)
		if err != nil {
			return err
		}
		p := c.place(i, addr, addr)
		p.host = host
		skew := skews[i%len(skews)]
		p.skewedBy(c.config.Skewed, skew)
		c.places = append(c.places, p)
		if err := errors.Join(p.start(), p.checkClock(skew)); err != nil {
			return err
		}
	}
	return nil
}

// HostsMissing says what RunHosts lacks on this machine; "": nothing.
func HostsMissing() string {
	for _, name := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(name); err != nil {
			return name
		}
	}
	return namespacesMissing()
}

// RunHosts runs a campaign whose replicas are on hosts of their own, in network namespaces
// that end with it. The program must call ServeReplica first.
func RunHosts(ctx context.Context, config Config) (result Result, err error) {
	config.Hosts = true
	if config.Skewed, err = buildSkewed(ctx, config.Dir); err != nil {
		return result, err
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
	intoNamespaces(child)
	if err := child.Run(); err != nil {
		return result, fmt.Errorf("chaos: running the hosts: %w", err)
	}
	text, err = os.ReadFile(filepath.Join(config.Dir, resultFile))
	if err != nil {
		return result, err
	}
	return result, json.Unmarshal(text, &result)
}

// serveHosts is what the process in the namespaces does.
func serveHosts(text string) error {
	var config Config
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	config.Progress = func(text string) { _, _ = fmt.Fprintln(os.Stderr, text) }
	if err := prepareBridge(); err != nil {
		return err
	}
	result, err := Run(context.Background(), config)
	if err != nil {
		return err
	}
	encoded, err := json.Marshal(result)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(config.Dir, resultFile), encoded, 0o600)
}
