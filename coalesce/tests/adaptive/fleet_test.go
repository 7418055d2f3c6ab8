// Package adaptive_test runs groups that ask Redis for shared keys alone, on a real Redis.
package adaptive_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) {
	logging.Disable() // what it says, the tests assert
	goleak.VerifyTestMain(m)
}

const (
	// patience is for what happens soon, unless the machine is very busy.
	patience = time.Minute
	// onItsWay is longer than Redis takes to answer: a function that is over before is not
	// worth asking, and a follower that joins so late joins anew.
	onItsWay = 100 * time.Millisecond
)

var errKnown = errors.New("known to every replica")

func init() { coalesce.RegisterError("adaptive_test.errKnown", errKnown) }

func value(context.Context) (string, error) { return "v", nil }

// eventually polls what no event announces to a test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Errorf("did not happen within %v: %s", patience, what) // not Fatal: functions of flights call it too
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// fleet is several replicas in one process, each with its own connections.
type fleet struct {
	t        *testing.T
	server   *redisrig.Server
	client   *redis.Client
	groups   []*replica
	followed atomic.Int64 // flights of the local tiers that follow one of another replica
}

type replica struct {
	*distributed.Group[string]
	fleet *distributed.Fleet
}

// Followed makes fleet a distributed.FollowHook.
func (f *fleet) Followed(context.Context, distributed.Followed) { f.followed.Add(1) }

func newFleet(t *testing.T, replicas int, opts ...distributed.Option) *fleet {
	t.Helper()
	f := &fleet{t: t, server: redisrig.Start(t)}
	f.client = f.server.Client()
	opts = append([]distributed.Option{
		distributed.WithRedisTimeout(patience / 2), distributed.WithLeaseTTL(patience), distributed.WithFlightTimeout(2 * patience),
		distributed.WithLogger(slog.New(slog.DiscardHandler)), distributed.WithHooks(f),
	}, opts...)
	for i := range replicas {
		// Every other replica's callers send their commands themselves.
		client := redis.NewClient(&redis.Options{Addr: f.server.Addr, ContextTimeoutEnabled: i%2 == 0})
		open, err := distributed.Open(client, opts...)
		if err != nil {
			t.Fatal(err)
		}
		group, err := distributed.NewGroup[string](open, "test")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := open.Close(ctx); err != nil {
				t.Errorf("Close: %v", err)
			}
			_ = client.Close()
		})
		f.groups = append(f.groups, &replica{group, open})
	}
	return f
}

// newAdaptive returns replicas whose flights need not ask: they hear what others forget.
func newAdaptive(t *testing.T, replicas int, opts ...distributed.Option) *fleet {
	t.Helper()
	f := newFleet(t, replicas, append(opts, distributed.WithAdaptive())...)
	for i, g := range f.groups {
		n := 0
		eventually(t, "it hears", func() bool {
			n++
			_, _, err := g.With(distributed.WithMaxAge(0)).Do(context.Background(), fmt.Sprint("warm ", i, " ", n), value)
			return err != nil || g.Stats().Distributed.Unasked > 0
		})
	}
	f.quiet()
	for _, g := range f.groups {
		g.ResetStats()
	}
	if err := f.client.ConfigResetStat(context.Background()).Err(); err != nil {
		t.Fatal(err)
	}
	return f
}

// quiet waits until no replica holds a lease.
func (f *fleet) quiet() {
	f.t.Helper()
	eventually(f.t, "every lease is released", func() bool {
		keys, err := f.client.Keys(context.Background(), "fleetcall:*:lease").Result()
		return err == nil && len(keys) == 0
	})
}

// scripts returns how many scripts and subscriptions clients have sent.
func (f *fleet) scripts() (calls int) {
	f.t.Helper()
	info, err := f.client.Info(context.Background(), "commandstats").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`cmdstat_(?:evalsha|eval|subscribe):calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		n, _ := strconv.Atoi(m[1])
		calls += n
	}
	return calls
}

func (f *fleet) unasked() (n uint64) {
	for _, g := range f.groups {
		n += g.Stats().Distributed.Unasked
	}
	return n
}

func (f *fleet) requests() (n uint64) {
	for _, g := range f.groups {
		n += g.Stats().Local.Requests
	}
	return n
}

// crowd makes so many calls on every replica at once, whose function runs until all have come
// and so many flights follow it. It returns how many executions there were.
func (f *fleet) crowd(callers int, key string, follow int) int {
	f.t.Helper()
	var runs atomic.Int32
	requests, followed := f.requests()+uint64(callers*len(f.groups)), f.followed.Load()+int64(follow)
	var wg sync.WaitGroup
	for i := range callers * len(f.groups) {
		wg.Go(func() {
			v, _, err := f.groups[i%len(f.groups)].Do(context.Background(), key, func(context.Context) (string, error) {
				runs.Add(1)
				eventually(f.t, "all have come", func() bool { return f.requests() >= requests && f.followed.Load() >= followed })
				time.Sleep(onItsWay)
				return "v", nil
			})
			if v != "v" || err != nil {
				f.t.Errorf("%q, %v", v, err)
			}
		})
	}
	wg.Wait()
	return int(runs.Load())
}
