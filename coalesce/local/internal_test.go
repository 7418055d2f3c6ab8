package local

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
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
		s, _ := g.shard(strconv.Itoa(i))
		used[s] = true
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
		if n := g.shards[i].flights.len(); n != 0 {
			t.Fatalf("lock %d still guards %d flights", i, n)
		}
	}
}

// TestFlightIsGoneBeforeItsFunctionLearnsThatItIsCancelled makes the end of the
// function's context last, so that the function can look before it is over.
func TestFlightIsGoneBeforeItsFunctionLearnsThatItIsCancelled(t *testing.T) {
	var g Group[string, int]
	s, hash := g.shard("key")
	ctx, leave := context.WithCancel(t.Context())
	var joinable atomic.Bool
	running := make(chan struct{})
	ch := g.DoChan(ctx, "key", func(ctx context.Context) (int, error) {
		for range 20_000 {
			context.AfterFunc(ctx, func() {})
		}
		done := ctx.Done()
		close(running)
		for waiting := true; waiting; {
			select {
			case <-done:
				waiting = false
			default:
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		joinable.Store(s.flights.find("key", hash) != nil)
		return 0, ctx.Err()
	})
	<-running
	leave()
	if r := <-ch; r.Err != context.Canceled {
		t.Errorf("the leaver got %+v", r)
	}
	for g.Stats().ActiveFlights > 0 {
		runtime.Gosched()
	}
	if joinable.Load() {
		t.Error("a flight that nobody waits for could be joined")
	}
}

// len counts the flights one by one.
func (t *table[K, V]) len() (n int) {
	chains := []*flight[K, V]{t.only}
	if t.buckets != nil {
		chains = append(chains, *t.buckets...)
	}
	for _, f := range chains {
		for ; f != nil; f = f.next {
			n++
		}
	}
	return n
}

// TestTableFindsWhatItHoldsAndNothingElse compares a table with a map through
// random steps. Set FLEETCALL_TEST_SEED to the seed that a failure prints to see
// it again.
func TestTableFindsWhatItHoldsAndNothingElse(t *testing.T) {
	seed := rand.Uint64()
	if again, err := strconv.ParseUint(os.Getenv("FLEETCALL_TEST_SEED"), 10, 64); err == nil {
		seed = again
	}
	t.Logf("FLEETCALL_TEST_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 100 {
		followTable(t, random, 1+random.IntN(2000))
	}
}

func followTable(t *testing.T, random *rand.Rand, steps int) {
	var tab table[int, int]
	held := map[int]*flight[int, int]{}
	hash := func(key int) uint64 { return uint64(key%7) * shardCount } // many in a chain
	for range steps {
		key := random.IntN(401)
		found := tab.find(key, hash(key))
		if found != held[key] {
			t.Fatalf("key %d: found %p, want %p", key, found, held[key])
		}
		switch {
		case found == nil:
			held[key] = &flight[int, int]{key: key, hash: hash(key)}
			tab.insert(held[key])
		case random.IntN(2) == 0:
			tab.remove(found)
			tab.remove(found) // does nothing
			delete(held, key)
		}
		if tab.len() != len(held) || int(tab.count) != len(held) {
			t.Fatalf("%d flights counted as %d, want %d", tab.len(), tab.count, len(held))
		}
	}
}

func TestTableThatWasLargeLetsItsMemoryGo(t *testing.T) {
	var tab table[int, int]
	var all []*flight[int, int]
	for key := range 4 * mostKept {
		f := &flight[int, int]{key: key, hash: uint64(key) * shardCount}
		tab.insert(f)
		all = append(all, f)
	}
	for _, f := range all {
		tab.remove(f)
	}
	if tab.buckets != nil {
		t.Errorf("an empty table keeps %d buckets", len(*tab.buckets))
	}
}

// A flight may run for long, and be followed and left by many batches meanwhile: it keeps
// nothing of them.
func TestFlightKeepsNothingOfBatchesThatHaveLeft(t *testing.T) {
	var g Group[string, int]
	release := make(chan struct{})
	leader := g.DoChan(context.Background(), "key", func(context.Context) (int, error) { <-release; return 1, nil })
	ctx, leave := context.WithCancel(context.Background())
	one := g.DoManyChan(ctx, []string{"key"}, nil)
	stays := g.DoManyChan(context.Background(), []string{"key"}, nil)
	other := g.DoManyChan(ctx, []string{"key"}, nil)
	leave()
	<-one
	<-other
	s, hash := g.shard("key")
	s.mu.Lock()
	f := s.flights.find("key", hash)
	if f.batches == nil || f.batches.next != nil || f.batches.prev != nil {
		t.Error("the flight has other batches than the one that stays")
	}
	s.mu.Unlock()
	close(release)
	<-leader
	if b := <-stays; b.Err != nil || b.Results["key"].Val != 1 {
		t.Errorf("the batch that stays got %+v", b)
	}
}
