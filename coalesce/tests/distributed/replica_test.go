package distributed_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// replica is the Group of one process of a fleet, and its Fleet.
type replica[V any] struct {
	*distributed.Group[V]
	fleet *distributed.Fleet
}

// open returns a replica whose options are those of both. The server gets the scripts before, so
// that what a test counts, and disturbs, is each step once.
func open[V any](client redis.UniversalClient, opts ...distributed.Option) (*replica[V], error) {
	if c, ok := client.(*redis.Client); ok {
		loadScripts(c.Options().Addr)
	}
	var fleetOpts []distributed.Option
	var groupOpts []distributed.GroupOption
	for _, opt := range opts {
		if groupOpt, ok := opt.(distributed.GroupOption); ok {
			groupOpts = append(groupOpts, groupOpt)
			if strings.Contains(fmt.Sprintf("%T", opt), "codecOption") {
				continue // Open refuses it
			}
		}
		fleetOpts = append(fleetOpts, opt)
	}
	fleet, err := distributed.Open(client, fleetOpts...)
	if err != nil {
		return nil, err
	}
	group, err := distributed.NewGroup[V](fleet, "test", groupOpts...)
	if err != nil {
		_ = fleet.Close(context.Background())
		return nil, err
	}
	return &replica[V]{group, fleet}, nil
}

// loadScripts gives the server the scripts. Where that fails, replicas bring them.
func loadScripts(addr string) {
	client := redis.NewClient(&redis.Options{Addr: addr, DialTimeout: time.Second, ReadTimeout: time.Second, MaxRetries: -1, DialerRetries: 1})
	defer client.Close()
	_, _ = client.Pipelined(context.Background(), func(pipe redis.Pipeliner) error {
		for text := range scriptNames() {
			if strings.Contains(text, "\n") { // a source, not its SHA
				pipe.ScriptLoad(context.Background(), text)
			}
		}
		return nil
	})
}

// openCalm is open with the longest Redis timeout that the lease TTL allows, so that
// a busy machine is no outage.
func openCalm[V any](t testing.TB, client redis.UniversalClient, opts ...distributed.Option) *replica[V] {
	t.Helper()
	for _, timeout := range []time.Duration{5 * time.Second, 3 * time.Second, 1500 * time.Millisecond, time.Second,
		600 * time.Millisecond, 300 * time.Millisecond, 150 * time.Millisecond, 100 * time.Millisecond} {
		r, err := open[V](client, append([]distributed.Option{distributed.WithRedisTimeout(timeout)}, opts...)...)
		if err == nil {
			return r
		}
		if !strings.Contains(err.Error(), "over the lease TTL") {
			t.Fatal(err)
		}
	}
	t.Fatal("no Redis timeout suits the lease TTL")
	return nil
}

// Close closes the Fleet.
func (r *replica[V]) Close(ctx context.Context) error { return r.fleet.Close(ctx) }

// replicaStats are the counts of a replica's Group and of its Fleet.
type replicaStats struct {
	Local       local.Stats
	Distributed tierStats
}

type tierStats struct {
	distributed.TierStats
	RedisErrors   uint64
	RedisErrorsBy map[string]uint64
	Garbage       uint64
	Server        distributed.ServerState // "down" when any server is
}

// Stats returns them.
func (r *replica[V]) Stats() replicaStats {
	fleet := r.fleet.Stats()
	group := r.Group.Stats()
	return replicaStats{group.Local, tierStats{group.Distributed, fleet.Redis.Errors, fleet.Redis.ErrorsBy, fleet.Redis.Garbage, worst(fleet.Redis.Servers)}}
}

// ResetStats sets them to zero.
func (r *replica[V]) ResetStats() { r.fleet.ResetStats() }

// worst returns ServerDown when any of the servers is down.
func worst(servers []distributed.ServerStats) distributed.ServerState {
	for _, server := range servers {
		if server.State == distributed.ServerDown {
			return distributed.ServerDown
		}
	}
	return distributed.ServerUp
}
