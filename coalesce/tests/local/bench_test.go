package local_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

// benchmarkKeys are as many as a busy replica may have in flight.
var benchmarkKeys = func() []string {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%d", i)
	}
	return keys
}()

// forEachCaller runs measure for a caller that cannot leave, which runs its
// function on its own goroutine, and for one that can.
func forEachCaller(b *testing.B, measure func(b *testing.B, ctx context.Context)) {
	b.Run("caller cannot leave", func(b *testing.B) { measure(b, context.Background()) })
	b.Run("caller can leave", func(b *testing.B) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ctx.Done() // makes the caller's channel, which the group need not pay for
		measure(b, ctx)
	})
}

func BenchmarkOneCallAfterAnother(b *testing.B) {
	forEachCaller(b, func(b *testing.B, ctx context.Context) {
		var g local.Group[string, int]
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			g.Do(ctx, benchmarkKeys[i%len(benchmarkKeys)], answer)
			i++
		}
	})
}

func BenchmarkFunctionThatFails(b *testing.B) {
	err := fmt.Errorf("reading the product: %w", errors.New("the query failed"))
	fail := func(context.Context) (int, error) { return 0, err }
	forEachCaller(b, func(b *testing.B, ctx context.Context) {
		var g local.Group[string, int]
		b.ReportAllocs()
		for b.Loop() {
			g.Do(ctx, "key", fail)
		}
	})
}

func BenchmarkCallsOnAllCores(b *testing.B) {
	forEachCaller(b, func(b *testing.B, ctx context.Context) {
		var g local.Group[string, int]
		b.ReportAllocs()
		var mu sync.Mutex
		next := 0
		b.RunParallel(func(pb *testing.PB) {
			mu.Lock()
			i := next
			next += len(benchmarkKeys) / runtime.GOMAXPROCS(0)
			mu.Unlock()
			for pb.Next() {
				g.Do(ctx, benchmarkKeys[i%len(benchmarkKeys)], answer)
				i++
			}
		})
	})
}

// BenchmarkFlightOfAThousand measures a flight from its start until all of its
// callers have returned.
func BenchmarkFlightOfAThousand(b *testing.B) {
	const followers = 999
	forEachCaller(b, func(b *testing.B, ctx context.Context) {
		var g local.Group[string, int]
		b.ReportAllocs()
		for b.Loop() {
			var wg sync.WaitGroup
			g.Do(ctx, "key", func(context.Context) (int, error) {
				for range followers {
					wg.Go(func() { g.Do(ctx, "key", answer) })
				}
				for g.Stats().Waiting <= followers {
					runtime.Gosched()
				}
				return 42, nil
			})
			wg.Wait()
		}
	})
}
