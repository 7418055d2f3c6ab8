package distributed_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestTheFirstFlightAfterAnOutageThatNobodyNoticedIsShared restarts Redis while nobody asks
// it anything but to subscribe.
func TestTheFirstFlightAfterAnOutageThatNobodyNoticedIsShared(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	replicas := connected(t, &redis.Options{Addr: server.Addr, DialerRetries: 1}, distributed.WithRedisTimeout(5*time.Second), distributed.WithLeaseTTL(time.Minute))
	eventually(t, "the flights are over", func() bool {
		return server.Client().Exists(t.Context(), "fleetcall:test:{connects}:lease").Val() == 0
	})
	time.Sleep(100 * time.Millisecond) // the reply is read
	server.Kill()
	time.Sleep(2 * time.Second) // the attempts to connect are about a second apart by now
	server.Restart()
	if !shared(server.Client(), replicas[0], replicas[1]) {
		t.Error("each replica ran its own")
	}
}
