package redisrig_test

import (
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestAServersClockIsSetAndItsKeysLiveByIt(t *testing.T) {
	if missing := redisrig.ClockMissing(); missing != "" {
		t.Skip("a server's clock needs " + missing)
	}
	server, clock := redisrig.StartOnClock(t)
	client, ctx := server.Client(), t.Context()
	ahead := func() time.Duration {
		now, err := client.Time(ctx).Result()
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(now).Round(time.Minute)
	}
	if err := client.Set(ctx, "key", "value", 10*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []time.Duration{0, -time.Hour, time.Hour} {
		clock.Set(want)
		if got := ahead(); got != want {
			t.Errorf("the clock is ahead by %v, want %v", got, want)
		}
		lives, err := client.PTTL(ctx, "key").Result()
		if err != nil {
			t.Fatal(err)
		}
		if gone := lives < 0; gone != (want > 0) || want < 0 && lives < 50*time.Minute {
			t.Errorf("%v ahead, the key lives for %v", want, lives)
		}
	}
	server.Restart()
	if got := ahead(); got != time.Hour {
		t.Errorf("restarted, the clock is ahead by %v", got)
	}
}
