package redisrig_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRedisHangsRestartsEmptyAndDies(t *testing.T) {
	r := redisrig.Start(t, "--requirepass", "secret")
	client := r.Client()
	ctx := t.Context()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}

	r.Freeze()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := client.Get(short, "k").Err(); err == nil {
		t.Error("a frozen server answered")
	}
	r.Thaw()
	if v, err := client.Get(ctx, "k").Result(); v != "v" || err != nil {
		t.Errorf("after Thaw: %q, %v", v, err)
	}

	r.Kill()
	if err := client.Ping(ctx).Err(); err == nil {
		t.Error("a killed server answered")
	}
	r.Restart()
	if n, err := client.Exists(ctx, "k").Result(); n != 0 || err != nil {
		t.Errorf("after Restart: %d keys, %v", n, err)
	}
}
