package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// faraway is a hook that makes each round trip of a batch take so long.
type faraway time.Duration

func (faraway) DialHook(next redis.DialHook) redis.DialHook { return next }

func (faraway) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (d faraway) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		time.Sleep(time.Duration(d)) // the way there
		return next(ctx, cmds)
	}
}

// TestForgettingThousandsOfKeysIsNoOutage has all of them together take longer than the
// Redis timeout, though Redis is well.
func TestForgettingThousandsOfKeysIsNoOutage(t *testing.T) {
	t.Parallel()
	g, _ := newPrompt(t, nil, faraway(30*time.Millisecond), distributed.WithRedisTimeout(800*time.Millisecond))
	keys := manyKeys(10_000)
	if err := g.Forget(context.Background(), keys...); err != nil {
		t.Error(err)
	}
	st := g.Stats().Distributed
	if st.Server != distributed.ServerUp || st.RedisErrors != 0 {
		t.Errorf("the server is %s, with the errors %v", st.Server, st.RedisErrorsBy)
	}
	if v, role, err := g.Do(context.Background(), "k", value); v != "v" || role != coalesce.Leader || err != nil {
		t.Errorf("a call after it: %q, %v, %v", v, role, err)
	}
}

// TestForgetEndsWithItsContextAndGoesOn has a Redis that hangs, and then is well.
func TestForgetEndsWithItsContextAndGoesOn(t *testing.T) {
	server := redisrig.Start(t)
	g := newGroup[string](t, openFleet(t, server, distributed.WithRedisTimeout(5*time.Second)), "g", distributed.WithMaxAge(time.Hour))
	ctx := context.Background()
	admin := server.Client()
	var keys, kept []string
	for i := range 3 {
		keys = append(keys, fmt.Sprint(i))
		kept = append(kept, "fleetcall:g:{"+keys[i]+"}:latest")
		if _, _, err := g.Do(ctx, keys[i], value); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the values are kept", func() bool { return admin.Exists(ctx, kept...).Val() == int64(len(kept)) })
	server.Freeze()
	ended, end := context.WithCancel(ctx)
	end()
	if err := g.Forget(ended, keys...); !errors.Is(err, context.Canceled) || errors.Is(err, coalesce.ErrUnavailable) {
		t.Errorf("Forget: %v", err)
	}
	server.Thaw()
	eventually(t, "they are dropped", func() bool { return admin.Exists(ctx, kept...).Val() == 0 })
}
