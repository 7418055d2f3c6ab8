package main

import (
	"fmt"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const (
	// tick is the time from one round to the next, of any key: a key's next comes
	// when its function is over.
	tick = 5 * time.Millisecond
	// scheduled is what a figure allows for goroutines to run, where its target is
	// nothing or one timeout.
	scheduled = 10 * time.Millisecond
)

// stream has all replicas called for one key after another, one round each tick, however
// long the calls take.
type stream struct {
	stop  chan struct{}
	ended sync.WaitGroup

	mu       sync.Mutex
	outcomes []outcome
}

func (f *troubled) stream(keys []string) *stream {
	s := &stream{stop: make(chan struct{})}
	s.ended.Go(func() {
		ticker := time.NewTicker(tick)
		defer ticker.Stop()
		for i := 0; ; i++ {
			select {
			case <-ticker.C:
			case <-s.stop:
				return
			}
			for replica := range f.groups {
				s.ended.Go(func() {
					o := f.call(background(), replica, keys[i%len(keys)], troubledFunction)
					s.mu.Lock()
					defer s.mu.Unlock()
					s.outcomes = append(s.outcomes, o)
				})
			}
		}
	})
	return s
}

// end returns what the calls got, when all have ended.
func (s *stream) end() []outcome {
	close(s.stop)
	s.ended.Wait()
	return s.outcomes
}

// waited is how long a call that came then, or waited already, had to wait on until its
// own replica ran the function for it.
func (o outcome) waited(since time.Time) time.Duration {
	if o.ran.replica != o.replica || o.ran.began.Before(since) {
		return 0 // another's result came, or its own was on its way
	}
	if o.called.After(since) {
		since = o.called
	}
	return max(0, o.ran.began.Sub(since))
}

// measureFrozen freezes a Redis and thaws it again, under callers that come all the time.
func measureFrozen(b *bench, s *section) {
	h := &rig.Host{}
	defer h.Close()
	server := redisrig.Start(h)
	around, frozen := 2*time.Second, 2*time.Second
	if b.quick {
		around, frozen = 500*time.Millisecond, time.Second
	}
	t := table{
		Title: fmt.Sprintf("Redis frozen for %v: a round of %d callers each %v, one key after another of %d", frozen, troubledReplicas, tick, troubledKeys),
		Columns: []string{
			"time", "callers of the first Redis timeout waited, p50", "most", "later ones, p50", "p99", "most", "thawed, until the first shared flight",
		},
		Note: "A wait is from the call, or from the freeze if that came later, until the caller's own replica ran its function.",
	}
	var first, later, thawed []time.Duration
	for i := range b.rounds(5) {
		f := troubledOn(server.Addr)
		calls := f.stream(keysNamed("frozen", troubledKeys))
		time.Sleep(around) // callers come all the while
		froze := time.Now()
		server.Freeze()
		time.Sleep(frozen)
		thaw := time.Now()
		server.Thaw()
		time.Sleep(around)
		outcomes := calls.end()
		f.close()

		a, b := waitsOf(outcomes, froze, thaw)
		first, later = append(first, a...), append(later, b...)
		shared := firstShared(outcomes, thaw)
		thawed = append(thawed, shared)
		t.add(fmt.Sprint(i+1), milliseconds(float64(quantile(a, 0.5))), milliseconds(float64(quantile(a, 1))),
			milliseconds(float64(quantile(b, 0.5))), milliseconds(float64(quantile(b, 0.99))), milliseconds(float64(quantile(b, 1))), milliseconds(float64(shared)))
	}
	s.Tables = append(s.Tables, t)
	s.within("Redis frozen, longest wait of callers of the first timeout", float64(quantile(first, 1)), float64(redisTimeout+scheduled), milliseconds)
	s.within("Redis frozen, longest wait of later callers", float64(quantile(later, 1)), float64(scheduled), milliseconds)
	s.within("Redis thawed, until the first shared flight", float64(quantile(thawed, 1)), float64(250*time.Millisecond), milliseconds)
}

// waitsOf returns the waits of callers by whether they came before the first of them could
// have learned that Redis does not answer: its command left within a tick of the freeze.
func waitsOf(outcomes []outcome, froze, thaw time.Time) (first, later []time.Duration) {
	known := froze.Add(redisTimeout + tick + scheduled)
	for _, o := range outcomes {
		switch {
		case o.returned.Before(froze) || !o.called.Before(thaw):
		case o.called.Before(known):
			first = append(first, o.waited(froze))
		default:
			later = append(later, o.waited(froze))
		}
	}
	return first, later
}

// firstShared is how long after then the first execution began whose result another
// replica got.
func firstShared(outcomes []outcome, then time.Time) time.Duration {
	var first time.Duration
	for _, o := range outcomes {
		after := o.ran.began.Sub(then)
		if o.role == coalesce.RemoteFollower && o.ran.replica != o.replica && after > 0 && (first == 0 || after < first) {
			first = after
		}
	}
	if first == 0 {
		return time.Hour // never
	}
	return first
}
