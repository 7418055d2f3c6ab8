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

// sentinelFault hits the servers that sentinels watch. Each has a host of its own.
type sentinelFault struct {
	fault
	strike func(context.Context, episode, *redisrig.Sentinel, *rand.Rand) error
}

var sentinelFaults = []sentinelFault{
	{fault{
		name: "hosts: the master's host gone, with Sentinel", effects: history.Effects{LosesKeys: true, Unusable: true, LosesMessages: true}, most: sentinelReplicas, calm: recovering,
		bound: arriving(withinBoth),
	}, loseWatchedMaster},
	{fault{
		// Sentinel promotes a replica without waiting for the master's last writes.
		name: "hosts: Redis replaced in turn, with Sentinel", effects: history.Effects{LosesKeys: true, Unreliable: true, LosesMessages: true}, most: 1.6, calm: recovering,
		bound: withinBoth,
	}, replaceWatched},
}

// loseWatchedMaster has the master's host be gone, until a replica has succeeded it.
func loseWatchedMaster(ctx context.Context, e episode, s *redisrig.Sentinel, _ *rand.Rand) error {
	end := e.begin("", held{})
	old := s.KillMaster()
	s.WaitFailover(old)
	err := end()
	e.pause(ctx, recovering)
	s.Rejoin(old)
	return err
}

// replaceWatched replaces each of the servers, as an update does: the master when a replica
// has succeeded it.
func replaceWatched(ctx context.Context, e episode, s *redisrig.Sentinel, random *rand.Rand) error {
	for _, server := range s.Nodes() {
		end := e.begin("", held{})
		if s.Master() == server {
			s.Failover()
			s.WaitFailover(server)
		}
		server.Stop()
		s.Rejoin(server)
		if err := end(); err != nil {
			return err
		}
		e.pause(ctx, between(random, leaseTTL/2, leaseTTL))
	}
	return nil
}

// hitWatched runs a fleet whose Redis is watched by sentinels, and hits its servers, a number
// of times in each way.
func (c *campaign) hitWatched(ctx context.Context, times int) error {
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
		for _, f := range sentinelFaults {
			if ctx.Err() != nil || !c.wants(f.name) {
				continue
			}
			if err := f.strike(ctx, c.episode(f.fault, f.name), sentinel, split(random)); err != nil {
				return fmt.Errorf("chaos: %s: %w", f.name, err)
			}
			c.pause(ctx, f.calm)
		}
	}
	return errors.Join(ctx.Err(), c.stopReplicas())
}
