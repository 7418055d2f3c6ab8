package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// groupOf makes the tier of the replica's mode. It returns a function that gives the tier
// to callers with a flight timeout of their own: all of them share flights.
func groupOf[V any](r *replica, opts ...distributed.GroupOption) (func(flightTimeout time.Duration) (coalesce.Group[V], error), error) {
	hooks, err := r.hooks()
	if err != nil {
		return nil, err
	}
	switch r.mode {
	case modeDistributed:
		if err := r.openFleet(hooks); err != nil {
			return nil, err
		}
		group, err := distributed.NewGroup[V](r.fleet, r.kind.group, opts...)
		return func(timeout time.Duration) (coalesce.Group[V], error) {
			return group.With(distributed.WithFlightTimeout(timeout)), nil
		}, err
	case modeShadow:
		group, err := shadowed[V](r, hooks)
		return func(time.Duration) (coalesce.Group[V], error) { return group, nil }, err
	case modeLocal:
		group := &local.Group[string, V]{}
		r.local = group
		r.metrics.registry.MustRegister(coalesceprom.NewLocalCollector(r.kind.group, group.Totals))
		return func(timeout time.Duration) (coalesce.Group[V], error) {
			return distributed.Observed(withFlightTimeout(local.Tier(group), timeout), r.kind.group, hooks...)
		}, nil
	}
	return func(time.Duration) (coalesce.Group[V], error) {
		return distributed.Observed[V](coalesce.Off[V]{}, r.kind.group, hooks...)
	}, nil
}

// hooks are those of every mode.
func (r *replica) hooks() ([]distributed.Hook, error) {
	hooks := []distributed.Hook{r.metrics.calls}
	if r.traces != nil {
		spans, err := r.traces.hook()
		if err != nil {
			return nil, err
		}
		hooks = append(hooks, spans)
	}
	return hooks, nil
}

// openFleet opens the replica's part in the fleet.
func (r *replica) openFleet(hooks []distributed.Hook) error {
	r.leases = newLeases(r.set.LeaseTTL)
	opts := []distributed.Option{
		distributed.WithNamespace(r.set.Namespace),
		distributed.WithReplicaID(r.id),
		distributed.WithRedisTimeout(r.set.RedisTimeout),
		distributed.WithLeaseTTL(r.set.LeaseTTL),
		distributed.WithFlightTimeout(r.set.FlightTimeout),
		distributed.WithMaxAge(r.set.MaxAge),
		distributed.WithLogger(r.plain),
		distributed.WithHooks(&fallbackLog{log: r.log, runs: r.kind.runs}, r.leases),
		distributed.WithHooks(hooks...),
	}
	if r.set.Adaptive {
		opts = append(opts, distributed.WithAdaptive())
	}
	fleet, err := distributed.Open(r.redis, opts...)
	if err != nil {
		return err
	}
	r.fleet = fleet
	r.metrics.registry.MustRegister(coalesceprom.NewCollector(fleet.Totals))
	return nil
}

// requested is told of each request.
func (r *replica) requested(request api.Request) {
	r.metrics.requested(request)
	if r.traces != nil {
		r.traces.requested(request)
	}
}

func (r *replica) redisStatus(ctx context.Context) api.RedisStatus {
	if r.redis == nil {
		return api.RedisDisabled
	}
	if r.fleet != nil && slices.ContainsFunc(r.fleet.Stats().Redis.Servers, isDown) {
		return api.RedisDegraded
	}
	ctx, cancel := context.WithTimeout(ctx, r.set.RedisTimeout)
	defer cancel()
	if r.redis.Ping(ctx).Err() != nil {
		return api.RedisDegraded
	}
	return api.RedisConnected
}

func (r *replica) tiers() api.Tiers {
	switch {
	case r.local != nil:
		return api.Tiers{Local: localTier(r.local.Stats())}
	case r.fleet != nil:
		st := r.fleet.Stats()
		return api.Tiers{Local: localTier(st.Local), Distributed: distributedTier(st)}
	}
	return api.Tiers{}
}

func (r *replica) resetTiers() {
	if r.local != nil {
		r.local.ResetStats()
	}
	if r.fleet != nil {
		r.fleet.ResetStats()
	}
	if r.shadow != nil {
		r.shadow.ResetStats()
	}
}

func localTier(st local.Stats) *api.LocalTier {
	return &api.LocalTier{
		Requests:      st.Requests,
		Leaders:       st.Leaders,
		Followers:     st.Followers,
		Errors:        st.Errors,
		ActiveFlights: st.ActiveFlights,
		Waiting:       st.Waiting,
		Batches:       st.Batches,
		BatchRuns:     st.BatchRuns,
		BatchKeys:     st.BatchKeys,
	}
}

func distributedTier(fleet distributed.FleetStats) *api.DistributedTier {
	st, redis := fleet.Distributed, fleet.Redis
	return &api.DistributedTier{
		Requests:      st.Requests,
		Leaders:       st.Leaders,
		Unasked:       st.Unasked,
		HotKeys:       fleet.HotKeys,
		Followers:     st.Followers,
		Cached:        st.Cached,
		Fallbacks:     st.Fallbacks,
		Takeovers:     st.Takeovers,
		LeaseLost:     st.LeaseLost,
		Errors:        st.Errors,
		Incompatible:  st.Incompatible,
		RedisErrors:   redis.Errors,
		RedisErrorsBy: redis.ErrorsBy,
		Garbage:       redis.Garbage,
		ActiveFlights: st.ActiveFlights,
		Batches:       st.Batches,
		BatchRuns:     st.BatchRuns,
		BatchKeys:     st.BatchKeys,
		RedisServers:  redisServers(redis.Servers),
	}
}

// redisServers returns what /stats says of them.
func redisServers(servers []distributed.ServerStats) []api.RedisServer {
	all := make([]api.RedisServer, len(servers))
	for i, s := range servers {
		all[i] = api.RedisServer{
			Address: s.Address,
			State:   string(s.State),
			Since:   float64(s.Since.UnixMilli()) / 1000,
			Why:     withoutSecrets(s.Why),
		}
	}
	return all
}

// userOfURL is what stands before the host of a URL.
var userOfURL = regexp.MustCompile(`//[^/\s]*@`)

// withoutSecrets returns an error of Redis without the users and passwords of URLs, and
// without the arguments of the command that Redis may quote: everybody may read /stats.
func withoutSecrets(why string) string {
	why, _, _ = strings.Cut(why, ", with args beginning with")
	return userOfURL.ReplaceAllString(why, "//")
}

func isDown(server distributed.ServerStats) bool { return server.State == distributed.ServerDown }
