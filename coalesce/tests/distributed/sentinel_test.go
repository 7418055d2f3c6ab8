package distributed_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// onSentinel returns how a replica connects, with the options that the program
// sets.
func onSentinel(sentinel *redisrig.Sentinel) func() redis.UniversalClient {
	return func() redis.UniversalClient {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: "mymaster", SentinelAddrs: sentinel.Addrs(), MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true, DisableIdentity: true,
		})
	}
}

func TestCallersDoNotNoticeThatSentinelsReplaceTheMaster(t *testing.T) {
	t.Parallel()
	sentinel := redisrig.StartSentinel(t)
	for _, c := range []struct {
		name    string
		replace func() *redisrig.Server
	}{{"asked to", sentinel.Failover}, {"after its death", sentinel.KillMaster}} {
		t.Run(c.name, func(t *testing.T) {
			r := newReplicas(t, onSentinel(sentinel), distributed.WithRedisTimeout(500*time.Millisecond), distributed.WithLeaseTTL(2*time.Second))
			keys := manyKeys(20)
			r.recovers(keys) // on a busy machine, connecting may take longer than the timeout
			leaders := r.leaders()

			h := r.hold(keys, theValue)
			old := c.replace()
			stop := r.load(manyKeys(40)[20:])
			master := sentinel.WaitFailover(old)
			if err := h.end().answered(); err != nil {
				t.Errorf("in flight: %v", err)
			}
			stop()
			r.recovers(keys)
			if r.leaders() == leaders {
				t.Error("nobody leads")
			}
			// An old master that lives has nothing to tell.
			client := master.Client()
			eventually(t, "every replica listens to the new master", func() bool {
				return len(controlChannels("fleetcall", client)) == replicaCount
			})
		})
	}
}

func (r *replicas) leaders() (n uint64) {
	for _, g := range r.groups {
		n += g.Stats().Distributed.Leaders
	}
	return n
}
