package shadow

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// hub connects the replicas of a bubble.
type hub struct {
	mu       sync.Mutex
	replicas []chan []byte
}

func (h *hub) join() transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	inbox := make(chan []byte, 64)
	h.replicas = append(h.replicas, inbox)
	return &wire{h, inbox}
}

type wire struct {
	hub   *hub
	inbox chan []byte
}

func (w *wire) publish(_ context.Context, report []byte) error {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	for _, inbox := range w.hub.replicas {
		inbox <- report
	}
	return nil
}

func (w *wire) receive(ctx context.Context, deliver func([]byte)) {
	for {
		select {
		case report := <-w.inbox:
			deliver(report)
		case <-ctx.Done():
			return
		}
	}
}

func (*wire) time(context.Context) (int64, error) { return time.Now().UnixMicro(), nil }

// recording is a load: calls in the order of their arrival.
type recording []recordedCall

type recordedCall struct {
	at, takes time.Duration
	replica   int
	key       int
}

// zipf records a load of Poisson arrivals, spread evenly over the replicas, of keys by
// Zipf's law with exponent 1, and functions that take half to three halves of the mean.
func zipf(seed uint64, replicas, keys int, perSecond float64, length, mean time.Duration) recording {
	random := rand.New(rand.NewPCG(seed, 1))
	sums := make([]float64, keys)
	sum := 0.0
	for i := range sums {
		sum += 1 / float64(i+1)
		sums[i] = sum
	}
	var calls recording
	for at := time.Duration(0); ; {
		at += time.Duration(random.ExpFloat64() / perSecond * float64(time.Second))
		if at > length {
			return calls
		}
		key, _ := slices.BinarySearch(sums, random.Float64()*sum)
		calls = append(calls, recordedCall{at, time.Duration((0.5 + random.Float64()) * float64(mean)), random.IntN(replicas), key})
	}
}

// flights returns how many flights coalescing makes of the calls that begin after
// some time, and how long they take: of all replicas' calls together, or each replica's by
// themselves. It knows nothing of the package under test.
func (r recording) flights(after time.Duration, together bool) (n int, took time.Duration) {
	until := map[[2]int]time.Duration{}
	for _, c := range r {
		place := [2]int{c.replica, c.key}
		if together {
			place[0] = 0
		}
		if c.at < until[place] {
			continue
		}
		until[place] = c.at + c.takes
		if c.at >= after {
			n++
			took += c.takes
		}
	}
	return n, took
}

// play makes the calls of a recording, without goroutines.
func (r recording) play(fleets []*Fleet, groups []*counted, at func(time.Duration)) {
	type end struct {
		at      time.Duration
		replica int
		c       call
	}
	var ends []end // a heap would be faster; few calls are under way at a time
	begun := time.Now()
	wait := func(until time.Duration) {
		time.Sleep(until - time.Since(begun))
		at(until)
	}
	finish := func(before time.Duration) {
		for len(ends) > 0 && ends[0].at <= before {
			wait(ends[0].at)
			fleets[ends[0].replica].end(&ends[0].c, false, 1)
			ends = ends[1:]
		}
	}
	for _, c := range r {
		finish(c.at)
		wait(c.at)
		e := end{c.at + c.takes, c.replica, fleets[c.replica].start(groups[c.replica], fmt.Sprint("key ", c.key))}
		i, _ := slices.BinarySearchFunc(ends, e, func(a, b end) int { return cmp.Compare(a.at, b.at) })
		ends = slices.Insert(ends, i, e)
	}
	finish(math.MaxInt64)
}

// predicted is what three replicas say together of a recording, after the first seconds.
func predicted(t *testing.T, r recording, after time.Duration, opts settings) (sum Stats, seconds Seconds) {
	synctest.Test(t, func(t *testing.T) {
		h := &hub{}
		var fleets []*Fleet
		var groups []*counted
		for range 3 {
			f := open(opts, h.join())
			g, err := NewGroup[int](f, "products")
			if err != nil {
				t.Fatal(err)
			}
			fleets, groups = append(fleets, f), append(groups, g.group)
		}
		reset := false
		r.play(fleets, groups, func(at time.Duration) {
			if !reset && at >= after {
				reset = true
				for _, f := range fleets {
					f.ResetStats()
				}
			}
		})
		time.Sleep(5 * time.Second)
		for i, f := range fleets {
			st := f.Stats().Groups["products"]
			if st.Pending != 0 {
				t.Errorf("replica %d: %d calls are not judged", i, st.Pending)
			}
			sum.Requests += st.Requests
			sum.Time += st.Time
			sum.Local.Executions += st.Local.Executions
			sum.Local.Time += st.Local.Time
			sum.Distributed.Executions += st.Distributed.Executions
			sum.Distributed.ExecutionsError += st.Distributed.ExecutionsError
			sum.Distributed.Time += st.Distributed.Time
			sum.Distributed.TimeError += st.Distributed.TimeError
			sum.Covered += st.Covered / 3
			seconds = f.Stats().Seconds
		}
		for _, f := range fleets {
			if err := f.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	return sum, seconds
}
