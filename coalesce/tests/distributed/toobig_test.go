package distributed_test

import (
	"context"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// refusesLarge is a proxy that answers large requests itself, and says that they are.
type refusesLarge struct{}

// tooBig is an error that a server replied.
type tooBig struct{}

func (tooBig) Error() string { return "ERR max request size exceeded" }

// RedisError makes tooBig a redis.Error.
func (tooBig) RedisError() {}

func (refusesLarge) DialHook(next redis.DialHook) redis.DialHook { return next }

func (refusesLarge) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		for _, arg := range cmd.Args() {
			if b, ok := arg.([]byte); ok && len(b) >= len(large) {
				cmd.SetErr(tooBig{})
				return cmd.Err()
			}
		}
		return next(ctx, cmd)
	}
}

func (refusesLarge) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestALargeResultThatIsRefusedInWordsFreesItsKey has the error come as a reply: the
// command did not run, and will not run at the next try either.
func TestALargeResultThatIsRefusedInWordsFreesItsKey(t *testing.T) {
	server := redisrig.Start(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true})
	defer client.Close()
	client.AddHook(refusesLarge{})
	f, err := distributed.Open(client, distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(calm))
	if err != nil {
		t.Fatal(err)
	}
	g := newGroup[[]byte](t, f, "g")
	if _, _, err := g.Do(context.Background(), "k", func(context.Context) ([]byte, error) { return large, nil }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the key is known for what it is", func() bool {
		return server.Client().Get(context.Background(), "fleetcall:g:{k}:lease").Val() == "!too large"
	})
	if err := f.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
