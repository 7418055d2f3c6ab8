package hot_test

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/hot"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const window = 10 * time.Second

func TestTheHottestKeysAreFoundAmongAMillionInBoundedMemory(t *testing.T) {
	k := hot.New[int32](window)
	now := time.Now()
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	// Ten keys have 10,000 to 19,000 requests, and a million keys have one each.
	order := make([]int32, 0, 1_145_000)
	for i := range int32(10) {
		for range 10_000 + 1_000*i {
			order = append(order, i)
		}
	}
	for i := range int32(1_000_000) {
		order = append(order, 1000+i)
	}
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for _, key := range order {
		k.Add(key, now)
	}
	order = nil
	if grown := int64(heap()) - int64(before); grown > 1<<20 {
		t.Errorf("a million keys took %d bytes", grown)
	}
	top := k.Top(10, now)
	if len(top) != 10 {
		t.Fatalf("%d keys", len(top))
	}
	for _, c := range top {
		had := float64(10_000 + 1_000*c.Key)
		if c.Key >= 10 || c.Requests > had || c.Requests < had*0.75 {
			t.Errorf("key %d: %.0f requests, it had %.0f", c.Key, c.Requests, had)
		}
	}
}

func TestFewKeysAreCountedExactly(t *testing.T) {
	k := hot.New[string](window)
	now := time.Now()
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				k.Add("a", now)
				k.Add("b", now)
				k.Add("a", now)
			}
		})
	}
	all.Wait()
	top := k.Top(5, now)
	if len(top) != 2 || top[0] != (hot.Count[string]{Key: "a", Requests: 8000}) || top[1] != (hot.Count[string]{Key: "b", Requests: 4000}) {
		t.Errorf("%v", top)
	}
	if top := k.Top(1, now); len(top) != 1 {
		t.Errorf("one was asked for: %v", top)
	}
}

// requests returns the counts of Top by key.
func requests(k *hot.Keys[string]) map[string]float64 {
	shown := map[string]float64{}
	for _, c := range k.Top(10, time.Now()) {
		shown[c.Key] = c.Requests
	}
	return shown
}

func TestASteadyRateIsShownAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hot.New[string](window)
		for n := 1; n <= 4000; n++ { // forty seconds
			time.Sleep(10 * time.Millisecond)
			k.Add("hot", time.Now())
			if n%20 == 0 {
				k.Add("warm", time.Now())
			}
			if n%37 != 0 {
				continue
			}
			got := requests(k)
			// A request at the edge of the window may count or not.
			if want := float64(min(n, 1000)); math.Abs(got["hot"]-want) > 1.5 {
				t.Fatalf("after %d requests, one each 10 ms: %.1f, want %.0f", n, got["hot"], want)
			}
			if want := float64(min(n/20, 50)); math.Abs(got["warm"]-want) > 1.5 {
				t.Fatalf("after %d requests, one each 200 ms: %.1f, want %.0f", n/20, got["warm"], want)
			}
		}
	})
}

func TestOneRequestIsShownForAsLongAsTheWindowAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hot.New[string](window)
		for range 20 {
			time.Sleep(777 * time.Millisecond) // each request falls into another part of its slot
			k.Add("lone", time.Now())
			time.Sleep(9 * time.Second)
			if got := requests(k); got["lone"] != 1 {
				t.Errorf("after 9 s: %v", got)
			}
			time.Sleep(2 * time.Second)
			if got := requests(k); len(got) != 0 {
				t.Errorf("after 11 s: %v", got)
			}
		}
	})
}

func TestWhatWasHotBeforeTheWindowIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hot.New[string](window)
		for range 1000 {
			k.Add("old", time.Now())
		}
		for second := range 12 {
			got := requests(k)["old"]
			switch {
			case second <= 9 && got != 1000:
				t.Errorf("after %d s, %.0f of 1,000 requests count", second, got)
			case second >= 11 && got != 0:
				t.Errorf("after %d s, %.0f still count", second, got)
			}
			time.Sleep(time.Second)
			k.Add("new", time.Now())
		}
		time.Sleep(time.Hour)
		if got := requests(k); len(got) != 0 {
			t.Errorf("after an hour: %v", got)
		}
	})
}

func TestAddAllocatesNothing(t *testing.T) {
	k := hot.New[int32](window)
	now, key := time.Now(), int32(0)
	if n := testing.AllocsPerRun(10_000, func() {
		key++
		k.Add(key, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAddOneKey(b *testing.B) {
	k := hot.New[int32](window)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Now()
		for pb.Next() {
			k.Add(1, now)
		}
	})
}

func BenchmarkAddManyKeys(b *testing.B) {
	k := hot.New[int32](window)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := time.Now()
		for pb.Next() {
			k.Add(rand.Int32N(1_000_000), now)
		}
	})
}
