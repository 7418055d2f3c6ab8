package chaos

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/loopback"
)

func killRedis(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	e.redis.Kill()
	e.pause(ctx, between(random, 100*time.Millisecond, 1200*time.Millisecond))
	e.redis.Restart()
	return end()
}

func freezeRedis(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	e.redis.Freeze()
	e.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	e.redis.Thaw()
	return end()
}

func fillRedis(ctx context.Context, e episode, random *rand.Rand) error {
	return e.configured(ctx, random,
		[]any{"CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"},
		[]any{"CONFIG", "SET", "maxmemory", "0"})
}

// demoteRedis makes Redis the read-only replica of a server that is not there.
func demoteRedis(ctx context.Context, e episode, random *rand.Rand) error {
	port, err := loopback.FreePort()
	if err != nil {
		return err
	}
	return e.configured(ctx, random,
		[]any{"REPLICAOF", "127.0.0.1", strconv.Itoa(port)},
		[]any{"REPLICAOF", "NO", "ONE"})
}

// configured sends a command, and after a while the one that undoes it.
func (e episode) configured(ctx context.Context, random *rand.Rand, do, undo []any) error {
	end := e.begin("", held{})
	if err := e.admin.Do(context.Background(), do...).Err(); err != nil {
		return err
	}
	e.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	return errors.Join(e.admin.Do(context.Background(), undo...).Err(), end())
}

func flushScripts(_ context.Context, e episode, _ *rand.Rand) error {
	end := e.begin("", held{})
	return errors.Join(e.admin.ScriptFlush(context.Background()).Err(), end())
}

// cutConnections closes all connections of a type, as CLIENT KILL names it.
func cutConnections(of string) func(context.Context, episode, *rand.Rand) error {
	return func(_ context.Context, e episode, _ *rand.Rand) error {
		end := e.begin("", held{})
		err := e.admin.Do(context.Background(), "CLIENT", "KILL", "TYPE", of, "SKIPME", "yes").Err()
		return errors.Join(err, end())
	}
}

// The policies by which Redis evicts keys.
var policies = []string{"volatile-ttl", "volatile-lru", "volatile-lfu", "volatile-random", "allkeys-lru", "allkeys-lfu", "allkeys-random"}

// evictKeys has another service fill the server, which evicts keys to make room, and
// refuses writes while there is nothing left to evict.
func evictKeys(_ context.Context, e episode, random *rand.Rand) error {
	ctx := context.Background()
	policy := policies[random.IntN(len(policies))]
	until := time.Now().Add(between(random, leaseTTL, 2*leaseTTL))
	used, err := e.memory(ctx)
	if err != nil {
		return err
	}
	end := e.begin("", held{})
	const room = 1 << 20
	if err := e.admin.Do(ctx, "CONFIG", "SET", "maxmemory-policy", policy, "maxmemory", used+room).Err(); err != nil {
		return err
	}
	for n := 0; time.Now().Before(until) && err == nil; n++ {
		_, err = e.admin.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for i := range 50 {
				pipe.Set(ctx, fmt.Sprintf("other:%d:%d", n, i), strings.Repeat("x", 4<<10), 5*time.Second)
			}
			return nil
		})
		if redis.HasErrorPrefix(err, "OOM") {
			err = nil
		}
		e.pause(ctx, 10*time.Millisecond)
	}
	undone := e.admin.Do(ctx, "CONFIG", "SET", "maxmemory", "0").Err()
	return errors.Join(err, undone, end())
}

// memory returns how many bytes Redis uses.
func (c *campaign) memory(ctx context.Context) (int, error) {
	info, err := c.admin.InfoMap(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(info["Memory"]["used_memory"])
}

// refuseSubscriptions has Redis refuse every SUBSCRIBE, and closes the connections that
// have subscribed.
func refuseSubscriptions(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	refused := e.admin.Do(context.Background(), "ACL", "SETUSER", "default", "-subscribe", "-psubscribe", "-ssubscribe").Err()
	cut := e.admin.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub").Err()
	e.pause(ctx, between(random, 2*redisTimeout, 2*leaseTTL))
	undone := e.admin.Do(context.Background(), "ACL", "SETUSER", "default", "+@all").Err()
	return errors.Join(refused, cut, undone, end())
}

// fillOutputBuffers lowers how much may wait for a connection until Redis closes it, and
// publishes more than that.
func fillOutputBuffers(ctx context.Context, e episode, random *rand.Rand) error {
	channels, err := e.admin.PubSubChannels(context.Background(), namespace+"*").Result()
	if err != nil {
		return err
	}
	end := e.begin("", held{})
	set := func(normal, messages string) error {
		limits := fmt.Sprintf("normal %s pubsub %s", normal, messages)
		return e.admin.ConfigSet(context.Background(), "client-output-buffer-limit", limits).Err()
	}
	errs := []error{set("24kb 0 0", "24kb 0 0")}
	large := "\xff" + strings.Repeat("x", 64<<10)
	for range 3 {
		for _, channel := range channels {
			errs = append(errs, e.admin.Publish(context.Background(), channel, large).Err())
		}
		e.pause(ctx, between(random, 0, leaseTTL/2))
	}
	return errors.Join(append(errs, set("0 0 0", "32mb 8mb 60"), end())...)
}

// runAnotherFleet runs a fleet of the same namespace on the server's other database: it
// calls for the same keys, and forgets them.
func runAnotherFleet(ctx context.Context, e episode, random *rand.Rand) error {
	client := redis.NewClient(&redis.Options{Addr: e.redis.Addr, DB: 1, ContextTimeoutEnabled: true})
	defer func() { _ = client.Close() }()
	fleet, err := distributed.Open(client, distributed.WithNamespace(namespace), distributed.WithLeaseTTL(leaseTTL),
		distributed.WithRedisTimeout(redisTimeout), distributed.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	group, err := distributed.NewGroup[string](fleet, groupName)
	if err != nil {
		return err
	}
	end := e.begin("", held{})
	for until := time.Now().Add(between(random, longestSpoiled, 2*longestSpoiled)); time.Now().Before(until); {
		key := randomKey(random)
		var val string
		val, _, err = group.Do(ctx, key, func(context.Context) (string, error) { return "another fleet's", nil })
		if err == nil && val != "another fleet's" {
			err = fmt.Errorf("the fleet on db 1 got %q", val)
		}
		if err != nil {
			break
		}
		// A busy machine may look like a Redis that is down: then nothing is forgotten.
		_ = group.Forget(ctx, key)
		e.pause(ctx, 5*time.Millisecond)
	}
	closing, cancel := context.WithTimeout(context.Background(), 10*grace) // the machine is busy
	defer cancel()
	if ctx.Err() != nil {
		err = nil // the campaign is over
	}
	return errors.Join(err, fleet.Close(closing), end())
}
