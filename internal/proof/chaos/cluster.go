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

// clusterFaults hit one of the masters, and no key of the others.
var clusterFaults = []fault{
	masterFault("one of three masters killed", "· the living ones' keys", clusterReplicas, history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}),
	masterFault("one of three masters frozen", "· the running ones' keys", clusterReplicas, history.Effects{Unreliable: true, LosesMessages: true}),
}

// clusterHostFaults are the same for a Cluster whose nodes are on hosts of their own.
var clusterHostFaults = []fault{
	masterFault("hosts: one of three masters' host gone", "· the living ones' keys", clusterReplicas, history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}),
	masterFault("hosts: one of three masters replaced", "· the others' keys", 1.6, history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}),
}

func masterFault(name, living string, most float64, effects history.Effects) fault {
	return fault{name: name, living: living, effects: effects, most: most, calm: recovering, bound: withinBoth}
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

func (m *masters) hit(ctx context.Context, f fault, random *rand.Rand) error {
	key := fmt.Sprintf("cluster-hot-%d", random.IntN(hotKeys))
	master := m.cluster.Master(key)
	shards, err := master.Client().ClusterShards(ctx).Result()
	if err != nil {
		return err
	}
	var hit []string
	for _, shard := range shards {
		if !slices.ContainsFunc(shard.Nodes, func(n redis.Node) bool { return net.JoinHostPort(n.IP, strconv.FormatInt(n.Port, 10)) == master.Addr }) {
			continue
		}
		for key, slot := range m.keys {
			if slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool { return r.Start <= int64(slot) && int64(slot) <= r.End }) {
				hit = append(hit, key)
			}
		}
	}
	end := m.episode(f, f.name).begin("", held{keys: hit})
	switch f.name {
	case clusterFaults[1].name:
		master.Freeze()
		m.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
		master.Thaw()
		return end()
	case clusterHostFaults[1].name:
		m.cluster.Failover(key)
		m.cluster.WaitFailover(master)
		master.Stop()
	default:
		m.cluster.KillMaster(key)
		m.cluster.WaitFailover(master)
	}
	err = end()
	m.pause(ctx, recovering)
	master.Restart()
	m.cluster.WaitComplete()
	return err
}
