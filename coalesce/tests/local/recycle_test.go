package local_test

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"weak"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

// TestFollowersGetTheirResultThoughTheLeaderGoesOnCalling gives the memory of a
// finished flight every chance to be used again before its followers have read
// it.
func TestFollowersGetTheirResultThoughTheLeaderGoesOnCalling(t *testing.T) {
	const followers, rounds = 8, 300
	leaving, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"can leave": leaving, "cannot leave": context.Background()} {
		t.Run(name, func(t *testing.T) {
			var g local.Group[int, int]
			for round := range rounds {
				var wg sync.WaitGroup
				leading := make(chan struct{})
				for range followers {
					wg.Go(func() {
						<-leading
						if got, _, _ := g.Do(ctx, 0, func(context.Context) (int, error) { return round, nil }); got != round {
							t.Errorf("a follower of flight %d got %d", round, got)
						}
					})
				}
				lead := func(context.Context) (int, error) {
					close(leading)
					for g.Stats().Waiting <= followers {
						runtime.Gosched()
					}
					return round, nil
				}
				if got, _, _ := g.Do(ctx, 0, lead); got != round {
					t.Errorf("the leader of flight %d got %d", round, got)
				}
				for key := range 20 {
					g.Do(ctx, 1+key, func(context.Context) (int, error) { return -1, nil })
				}
				wg.Wait()
			}
		})
	}
}

func TestGroupKeepsNoResultAlive(t *testing.T) {
	leaving, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"can leave": leaving, "cannot leave": context.Background()} {
		t.Run(name, func(t *testing.T) {
			var g local.Group[string, *[1 << 16]byte]
			result, _, _ := g.Do(ctx, "key", func(context.Context) (*[1 << 16]byte, error) { return new([1 << 16]byte), nil })
			seen := weak.Make(result)
			runtime.GC() // what is kept for use again survives the first one
			if seen.Value() != nil {
				t.Error("the result is still reachable")
			}
			runtime.KeepAlive(&g)
		})
	}
}
