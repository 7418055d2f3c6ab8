package local

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"unsafe"
)

func TestShardFillsOneCacheLine(t *testing.T) {
	if size := unsafe.Sizeof(shard[string, [9]int]{}); size != 64 {
		t.Errorf("%d bytes, want 64", size)
	}
}

func TestKeysAreSpreadOverTheLocks(t *testing.T) {
	var g Group[string, int]
	used := map[*shard[string, int]]bool{}
	for i := range 100 * shardCount {
		used[g.shard(strconv.Itoa(i))] = true
	}
	if len(used) != shardCount {
		t.Errorf("%d of %d locks are used", len(used), shardCount)
	}
}

func TestFlightsThatHaveEndedLeaveNoKeyBehind(t *testing.T) {
	var g Group[int, int]
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for key := range 1000 {
		g.Do(context.Background(), key, func(context.Context) (int, error) { return key, nil })
		g.Do(ctx, -key, func(context.Context) (int, error) { return key, nil })
		<-g.DoChan(ctx, key, func(context.Context) (int, error) { return key, nil })
	}
	for i := range g.shards {
		if n := len(g.shards[i].flights); n != 0 {
			t.Fatalf("lock %d still guards %d flights", i, n)
		}
	}
}

// TestFlightIsGoneBeforeItsFunctionLearnsThatItIsCancelled holds the lock that
// the cancellation needs, so that it comes as late as it can.
func TestFlightIsGoneBeforeItsFunctionLearnsThatItIsCancelled(t *testing.T) {
	var g Group[string, int]
	ctx, leave := context.WithCancel(t.Context())
	running := make(chan *flightContext)
	ch := g.DoChan(ctx, "key", func(ctx context.Context) (int, error) {
		running <- ctx.(*flightContext)
		<-ctx.Done()
		return 0, ctx.Err()
	})
	c := <-running

	c.mu.Lock()
	leave()
	for g.Stats().Waiting != 0 {
		runtime.Gosched()
	}
	s := g.shard("key")
	s.mu.Lock()
	joinable := len(s.flights)
	s.mu.Unlock()
	c.mu.Unlock()

	if joinable != 0 {
		t.Error("a flight that nobody waits for can be joined")
	}
	if r := <-ch; r.Err != context.Canceled {
		t.Errorf("the leaver got %+v", r)
	}
}
