package distributed_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// onFinish is a hook that is called before a finish is sent.
type onFinish func()

func (h onFinish) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h onFinish) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if scriptOf(cmd) == "finish" {
			h()
		}
		return next(ctx, cmd)
	}
}

func (h onFinish) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestFollowersDoNotWaitForTheLeadersHerd has callers on the leader's replica that
// have much to do with the result. Until Redis has it, the followers wait, and
// others join a flight that has ended.
func TestFollowersDoNotWaitForTheLeadersHerd(t *testing.T) {
	const herd, work = 5000, 100 * time.Microsecond
	f := newFleet[string](t, 0)
	client := redis.NewClient(&redis.Options{Addr: f.server.Addr})
	defer client.Close()
	var worked atomic.Int64
	before := make(chan int64, 1)
	client.AddHook(onFinish(func() { before <- worked.Load() }))
	g, err := open[string](client, distributed.WithRedisTimeout(10*time.Second), distributed.WithLeaseTTL(10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.Background())
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for range herd {
		wg.Go(func() {
			_, _, _ = g.Do(ctx, "k", func(context.Context) (string, error) {
				<-release
				return "v", nil
			})
			for began := time.Now(); time.Since(began) < work; {
			}
			worked.Add(1)
		})
	}
	eventually(t, "all wait", func() bool { return g.Stats().Local.Waiting == herd })
	close(release)
	if n := <-before; n > herd/4 {
		t.Errorf("the outcome was sent after %d of %d callers had worked with it", n, herd)
	}
	wg.Wait()
}
