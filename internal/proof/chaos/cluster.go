package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/internal/proof/history"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// clusterReplicas share a Cluster of three masters.
const clusterReplicas = 3

// clusterFault hits one of the masters, and no key of the others.
type clusterFault struct {
	fault
	strike func(context.Context, *masters, target, *rand.Rand) error
}

// target is a master that is hit, and the keys in its slots.
type target struct {
	episode
	master *redisrig.Server
	key    string // one of them
	keys   []string
}

var clusterFaults = []clusterFault{
	{masterFault("one of three masters killed", "· the living ones' keys", clusterReplicas, history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}), killMaster},
	{masterFault("one of three masters frozen", "· the running ones' keys", clusterReplicas, history.Effects{Unreliable: true, LosesMessages: true}), freezeMaster},
}

// clusterHostFaults are those of a Cluster whose nodes are on hosts of their own. A planned
// failover loses no key: the master waits for its replica.
var clusterHostFaults = []clusterFault{
	{masterFault("hosts: one of three masters' host gone", "· the living ones' keys", clusterReplicas, history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}), killMaster},
	{masterFault("hosts: one of three masters replaced", "· the others' keys", 1.6, history.Effects{Unreliable: true, LosesMessages: true}), replaceMaster},
}

func masterFault(name, living string, most float64, effects history.Effects) fault {
	return fault{name: name, living: living, effects: effects, most: most, calm: recovering, bound: withinBoth}
}

// killMaster kills it, and its host if it has one, until its replica has succeeded it.
func killMaster(ctx context.Context, m *masters, t target, _ *rand.Rand) error {
	end := t.begin("", held{keys: t.keys})
	m.cluster.KillMaster(t.key)
	m.cluster.WaitFailover(t.master)
	return m.rejoin(ctx, t.master, end)
}

// freezeMaster freezes it for less than its replica needs to succeed it.
func freezeMaster(ctx context.Context, m *masters, t target, random *rand.Rand) error {
	end := t.begin("", held{keys: t.keys})
	t.master.Freeze()
	m.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	t.master.Thaw()
	return end()
}

// replaceMaster has its replica succeed it, and starts it anew, as an update does.
func replaceMaster(ctx context.Context, m *masters, t target, _ *rand.Rand) error {
	end := t.begin("", held{keys: t.keys})
	m.cluster.Failover(t.key)
	m.cluster.WaitFailover(t.master)
	t.master.Stop()
	return m.rejoin(ctx, t.master, end)
}

// rejoin ends a fault, and starts the old master as a replica when the fleet has recovered.
func (m *masters) rejoin(ctx context.Context, old *redisrig.Server, end func() error) error {
	err := end()
	m.pause(ctx, recovering)
	old.Restart()
	m.cluster.WaitComplete()
	return err
}

// mostLiving is the price of a dead master for the keys of the living ones.
const mostLiving = 1.05

// masters is a fleet on a Cluster.
type masters struct {
	*campaign
	cluster *redisrig.Cluster
	keys    map[string]int // the slot of each that callers use
}

// hitMasters runs a fleet on a Cluster and hits one of its masters, a number of times in
// each way.
func (c *campaign) hitMasters(ctx context.Context, times int) (err error) {
	// The living masters serve their slots while those of the dead one have no master.
	m := &masters{campaign: c, cluster: redisrig.StartClusterOn(c.host, c.network, "--cluster-require-full-coverage", "no")}
	faults := clusterFaults
	if c.config.Hosts {
		faults = clusterHostFaults
	}
	c.places = nil
	for i := range clusterReplicas {
		p := &place{number: 101 + i, config: workerConfig{
			Dir: c.config.Dir, Seed: c.config.Seed, Callers: c.config.Callers,
			Cluster: m.cluster.Addrs(), Namespace: namespace, Prefix: "cluster-",
		}}
		if err := c.startAt(i, p); err != nil {
			return err
		}
	}
	if err := m.readSlots(ctx); err != nil {
		return err
	}
	c.pause(ctx, time.Second)
	random := stream(c.config.Seed, "masters")
	for range times {
		for _, f := range faults {
			if ctx.Err() != nil || !c.wants(f.name) {
				continue
			}
			if err := m.hit(ctx, f, split(random)); err != nil {
				return fmt.Errorf("chaos: %s: %w", f.name, err)
			}
			c.pause(ctx, f.calm)
		}
	}
	return errors.Join(ctx.Err(), c.stopReplicas())
}

// readSlots asks for the slot of each key that the callers use.
func (m *masters) readSlots(ctx context.Context) error {
	m.keys = map[string]int{}
	slots := map[string]*redis.IntCmd{}
	_, err := m.cluster.Nodes()[0].Client().Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for _, key := range allKeys() {
			slots["cluster-"+key] = pipe.ClusterKeySlot(ctx, "cluster-"+key)
		}
		return nil
	})
	for key, slot := range slots {
		m.keys[key] = int(slot.Val())
	}
	return err
}

func (m *masters) hit(ctx context.Context, f clusterFault, random *rand.Rand) error {
	key := fmt.Sprintf("cluster-hot-%d", random.IntN(hotKeys))
	master := m.cluster.Master(key)
	shards, err := master.Client().ClusterShards(ctx).Result()
	if err != nil {
		return err
	}
	t := target{episode: m.episode(f.fault, f.name), master: master, key: key}
	for _, shard := range shards {
		if !slices.ContainsFunc(shard.Nodes, func(n redis.Node) bool { return net.JoinHostPort(n.IP, strconv.FormatInt(n.Port, 10)) == master.Addr }) {
			continue
		}
		for key, slot := range m.keys {
			if slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return r.Start <= int64(slot) && int64(slot) <= r.End }) {
				t.keys = append(t.keys, key)
			}
		}
	}
	return f.strike(ctx, m, t, random)
}
