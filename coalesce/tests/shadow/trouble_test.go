package shadow_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// manyCalls makes calls from several goroutines whose functions return at once. If each of
// them waited for a command of Redis, they would take hours.
func manyCalls(t *testing.T, group coalesce.Group[string]) {
	t.Helper()
	begun := time.Now()
	var callers sync.WaitGroup
	for caller := range 20 {
		callers.Go(func() {
			for i := range 1000 {
				val, role, err := group.Do(context.Background(), fmt.Sprint("key ", i%10), func(context.Context) (string, error) { return fmt.Sprint(caller), nil })
				if val != fmt.Sprint(caller) || role != coalesce.Leader || err != nil {
					t.Errorf("Do = %q, %v, %v", val, role, err)
					return
				}
			}
		})
	}
	callers.Wait()
	if took := time.Since(begun); took > patience/2 {
		t.Errorf("20,000 calls took %v: they waited", took)
	}
}

func TestNoCallerWaitsOrFailsWhileRedisIsFrozenAndCountingGoesOnAfterwards(t *testing.T) {
	server := redisrig.Start(t)
	fleet, group := open(t, client(t, server))
	eventually(t, "counting", func() bool { return fleet.Stats().Seconds.Counted > 0 })
	server.Freeze()
	unheard := fleet.Stats().Seconds.Unheard
	eventually(t, "noticing", func() bool {
		manyCalls(t, group)
		return fleet.Stats().Seconds.Unheard > unheard+2
	})
	st := group.Stats()
	if st.Local.Executions == 0 || st.Covered > 0.9 {
		t.Errorf("%+v", st)
	}
	server.Thaw()
	counted := fleet.Stats().Seconds.Counted
	eventually(t, "counting again", func() bool { return fleet.Stats().Seconds.Counted > counted+1 })
}

func TestNoCallerWaitsOrFailsWhileRedisIsDeadAndCountingGoesOnAfterwards(t *testing.T) {
	server := redisrig.Start(t)
	fleet, group := open(t, client(t, server))
	eventually(t, "counting", func() bool { return fleet.Stats().Seconds.Counted > 0 })
	server.Kill()
	manyCalls(t, group)
	unheard := fleet.Stats().Seconds.Unheard
	eventually(t, "noticing", func() bool { return fleet.Stats().Seconds.Unheard > unheard })
	manyCalls(t, group)
	server.Restart()
	counted := fleet.Stats().Seconds.Counted
	eventually(t, "counting again", func() bool { return fleet.Stats().Seconds.Counted > counted+1 })
}

func TestAReplicaThatStartsWithoutRedisCallsAllTheSame(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}) // nothing listens there
	t.Cleanup(func() { _ = c.Close() })
	fleet, group := open(t, c)
	manyCalls(t, group)
	eventually(t, "noticing", func() bool { return fleet.Stats().Seconds.Unheard > 0 })
	if st := group.Stats(); st.Requests != 20_000 || st.Covered != 0 || st.Distributed.Executions != st.Local.Executions {
		t.Errorf("%+v", st)
	}
}

func TestCloseDoesNotWaitForARedisThatIsFrozen(t *testing.T) {
	server := redisrig.Start(t)
	c := client(t, server)
	fleet, err := shadow.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "counting", func() bool { return fleet.Stats().Seconds.Counted > 0 })
	server.Freeze()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := fleet.Close(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	server.Thaw()
	if err := fleet.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
