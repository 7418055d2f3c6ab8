package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/fleetcall/fleetcall/internal/proof/history"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// sentinelReplicas share a master with two replicas of its own, which three sentinels watch.
const sentinelReplicas = 3

// sentinelFaults hit the master that sentinels watch. Each server has a host of its own.
var sentinelFaults = []fault{
	{
		name: "hosts: the master's host gone, with Sentinel", effects: history.Effects{LosesKeys: true, Unusable: true, LosesMessages: true}, most: sentinelReplicas, calm: recovering,
		bound: arriving(withinBoth),
	},
	{
		name: "hosts: Redis replaced in turn, with Sentinel", effects: history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}, most: 1.6, calm: recovering,
		bound: withinBoth,
	},
}

// loseMasters runs a fleet whose Redis is watched by sentinels, and hits its servers, a number
// of times in each way.
func (c *campaign) loseMasters(ctx context.Context, times int) error {
	wanted := c.chosen(sentinelFaults)
	if len(wanted) == 0 {
		return nil
	}
	sentinel := redisrig.StartSentinelOn(c.host, c.network)
	c.places = nil
	for i := range sentinelReplicas {
		err := c.startAt(i, &place{number: 201 + i, config: workerConfig{
			Dir: c.config.Dir, Seed: c.config.Seed, Callers: c.config.Callers,
			Sentinels: sentinel.Addrs(), Namespace: namespace, Prefix: "sentinel-",
		}})
		if err != nil {
			return err
		}
	}
	c.pause(ctx, leaseTTL)
	random := stream(c.config.Seed, "sentinel")
	for range times {
		for _, f := range wanted {
			if ctx.Err() != nil {
				continue
			}
			if err := c.loseMaster(ctx, f, sentinel, split(random)); err != nil {
				return fmt.Errorf("chaos: %s: %w", f.name, err)
			}
			c.pause(ctx, f.calm)
		}
	}
	return errors.Join(ctx.Err(), c.stopReplicas())
}

func (c *campaign) loseMaster(ctx context.Context, f fault, sentinel *redisrig.Sentinel, random *rand.Rand) error {
	e := c.episode(f, f.name)
	if f.name == sentinelFaults[1].name {
		for range sentinel.Nodes() {
			end := e.begin("", held{})
			old := sentinel.Failover()
			sentinel.WaitFailover(old)
			old.Stop()
			sentinel.Rejoin(old)
			if err := end(); err != nil {
				return err
			}
			c.pause(ctx, between(random, leaseTTL/2, leaseTTL))
		}
		return nil
	}
	end := e.begin("", held{})
	old := sentinel.KillMaster()
	sentinel.WaitFailover(old)
	err := end()
	c.pause(ctx, recovering)
	sentinel.Rejoin(old)
	return err
}
