package local

import (
	"context"
	"math/bits"
	"runtime"
	"slices"
	"sync"

	"github.com/fleetcall/fleetcall/coalesce"
)

// DoMany is Do for many keys, with one call of fn for all those that nobody runs a
// function for: fn is given these, each once, in the order of keys. The others are
// followed, each by itself. fn does not wait for them, and no key waits for another, so
// that batches never wait for each other. A key that is given twice counts once.
//
// The map has a Result for each key, and what it has is what Do would have returned for
// the key: coalesce.ResultOf says how that comes from what fn returned. When ctx ends
// first, DoMany returns ctx.Err() at once, and so has every key that was not there yet.
// The context of fn ends when nobody waits for any of its keys any more.
//
// When fn panics, DoMany panics with a *coalesce.PanicError once all keys are there, and
// when it calls runtime.Goexit, the goroutine exits. Where another caller's function does
// that, the key's error is the *coalesce.PanicError, or coalesce.ErrGoexit. Keys whose
// flights have been abandoned are joined anew, together with those that have been at the
// same moment: then fn is called another time, perhaps while its first call still runs.
func (g *Group[K, V]) DoMany(ctx context.Context, keys []K, fn func(ctx context.Context, keys []K) (map[K]V, error)) (map[K]coalesce.Result[V], error) {
	g.batches.Add(1)
	keys, hashes := distinct(keys)
	if err := ctx.Err(); err != nil || len(keys) == 0 {
		return refuse[V](keys, err), err
	}
	b := &batch[K, V]{g: g, ctx: ctx, fn: fn, keys: len(keys)}
	r := b.join(keys, hashes)
	switch {
	case r != nil && ctx.Done() == nil && len(b.follows) == 0:
		// This caller cannot leave, and has nobody to wait for: it runs fn on its own
		// goroutine.
		r.run()
	case r != nil:
		go r.run()
		// As in Do: a function that does little has ended after this.
		runtime.Gosched()
	}
	if err := b.wait(); err != nil {
		return b.results, err
	}
	b.unwind()
	b.recycle()
	return b.results, nil
}

// Batch is what DoManyChan delivers.
type Batch[K comparable, V any] struct {
	Results map[K]coalesce.Result[V]
	Err     error
}

// DoManyChan is DoMany with the results on a channel of capacity one. The call has
// started or joined the flights of all keys when DoManyChan returns.
//
// As with DoChan, a panic of fn ends the program, and runtime.Goexit arrives as the error
// coalesce.ErrGoexit of the keys that fn was given.
func (g *Group[K, V]) DoManyChan(ctx context.Context, keys []K, fn func(ctx context.Context, keys []K) (map[K]V, error)) <-chan Batch[K, V] {
	ch := make(chan Batch[K, V], 1)
	g.batches.Add(1)
	keys, hashes := distinct(keys)
	if err := ctx.Err(); err != nil || len(keys) == 0 {
		ch <- Batch[K, V]{refuse[V](keys, err), err}
		return ch
	}
	b := &batch[K, V]{g: g, ctx: ctx, fn: fn, keys: len(keys)}
	if r := b.join(keys, hashes); r != nil {
		go r.run()
	}
	go func() {
		err := b.wait()
		if err == nil && b.panicked != nil {
			panic(b.panicked)
		}
		ch <- Batch[K, V]{b.results, err}
	}()
	return ch
}

// batch is one call of DoMany.
type batch[K comparable, V any] struct {
	g       *Group[K, V]
	ctx     context.Context // the caller's
	fn      func(context.Context, []K) (map[K]V, error)
	keys    int                      // how many it has
	results map[K]coalesce.Result[V] // made when all are there, or the caller leaves

	runs    []*run[K, V] // of its function: more than one after flights were abandoned
	follows []*follow[K, V]

	// news has room for one, and is sent when there is something to look at: nothing
	// is pending any more, or a flight has been abandoned.
	news chan struct{}

	mu        sync.Mutex
	pending   int             // runs and follows that have not ended; guarded by mu
	abandoned []*follow[K, V] // that have ended so, and are to be joined anew; guarded by mu

	// What became of its own function.
	panicked *coalesce.PanicError
	exited   bool

	overtaken bool // everything had ended when the caller was about to leave
}

// distinct returns keys, each once, and their hashes. Hashing a key may panic: after this,
// it does not.
func distinct[K comparable](keys []K) ([]K, []uint64) {
	hashes := make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = hashOf(key)
	}
	// Indices, counted from one, in a table that is at most half full: with the hashes at
	// hand, it costs a third of a map.
	table := make([]int32, 1<<bits.Len(uint(2*len(keys))))
	mask := uint64(len(table) - 1)
	var again []bool // keys that are there already
	for i, key := range keys {
		at := hashes[i] & mask
		for table[at] != 0 && (hashes[table[at]-1] != hashes[i] || keys[table[at]-1] != key) {
			at = (at + 1) & mask
		}
		if table[at] == 0 {
			table[at] = int32(i + 1)
			continue
		}
		if len(again) == 0 {
			again = make([]bool, len(keys))
		}
		again[i] = true
	}
	if len(again) == 0 {
		return keys, hashes
	}
	once := make([]K, 0, len(keys)) // the caller's own must not be changed
	for i, key := range keys {
		if !again[i] {
			hashes[len(once)] = hashes[i]
			once = append(once, key)
		}
	}
	return once, hashes[:len(once)]
}

// refuse returns the results of keys that are not joined.
func refuse[V any, K comparable](keys []K, err error) map[K]coalesce.Result[V] {
	results := make(map[K]coalesce.Result[V], len(keys))
	for _, key := range keys {
		results[key] = coalesce.Result[V]{Err: err}
	}
	return results
}

// join joins keys, which have no flights of this batch, and returns the run of the
// function that the caller must start, or nil.
func (b *batch[K, V]) join(keys []K, hashes []uint64) *run[K, V] {
	var r *run[K, V]
	var follows []follow[K, V] // memory for them, which does not move
	for i, key := range keys {
		hash := hashes[i]
		s := &b.g.shards[hash%shardCount]
		s.mu.Lock()
		s.requests++
		s.waiting++
		if f := s.flights.find(key, hash); f != nil {
			if follows == nil {
				follows = make([]follow[K, V], 0, len(keys)-i)
			}
			follows = append(follows, follow[K, V]{b: b, s: s, f: f})
			b.follow(s, f, &follows[len(follows)-1])
		} else {
			if r == nil {
				r = b.newRun(len(keys) - i)
			}
			s.flights.insert(r.add(s, key, hash))
			s.active++
		}
		s.mu.Unlock()
	}
	if r != nil {
		r.waited.Store(int32(len(r.flights))) // none has been left: this caller waits for all
		b.runs = append(b.runs, r)
		b.mu.Lock()
		b.pending++
		b.mu.Unlock()
	}
	return r
}

func (b *batch[K, V]) ranOut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pending--; b.pending == 0 && b.news != nil {
		b.tellLocked()
	}
}

func (b *batch[K, V]) tellLocked() {
	select {
	case b.news <- struct{}{}:
	default: // there is some already
	}
}

// wait returns when all keys have their results, or with ctx.Err() when ctx ends first.
// It joins anew the flights that have been abandoned.
func (b *batch[K, V]) wait() error {
	for {
		b.mu.Lock()
		again := b.abandoned
		b.abandoned = nil
		pending := b.pending
		if b.news == nil && pending > 0 {
			b.news = make(chan struct{}, 1)
		}
		b.mu.Unlock()
		switch {
		case len(again) > 0 && b.ctx.Err() == nil:
			b.joinAnew(again)
			continue
		case pending == 0 && len(again) == 0:
			b.collect()
			return nil
		}
		if len(again) == 0 {
			select {
			case <-b.news:
				continue
			case <-b.ctx.Done():
			}
		}
		return b.leave()
	}
}

// joinAnew joins the flights that the keys of abandoned ones have now.
func (b *batch[K, V]) joinAnew(abandoned []*follow[K, V]) {
	keys, hashes := make([]K, len(abandoned)), make([]uint64, len(abandoned))
	for i, fo := range abandoned {
		keys[i], hashes[i], fo.anew = fo.f.key, fo.f.hash, true
	}
	b.follows = slices.DeleteFunc(b.follows, func(fo *follow[K, V]) bool { return fo.anew })
	if r := b.join(keys, hashes); r != nil {
		go r.run()
	}
}

// collect makes the results of flights that have ended.
func (b *batch[K, V]) collect() {
	b.results = make(map[K]coalesce.Result[V], b.keys)
	for _, r := range b.runs {
		if !r.outcomes.Returned() {
			b.lost(r.outcomes.Err())
		}
		for i := range r.flights {
			f := &r.flights[i]
			b.results[f.key] = f.result(coalesce.Leader)
		}
	}
	for _, fo := range b.follows {
		b.results[fo.f.key] = fo.f.result(coalesce.LocalFollower)
	}
}

func (b *batch[K, V]) lost(err error) {
	if panicked, ok := err.(*coalesce.PanicError); ok {
		b.panicked = panicked
		return
	}
	b.exited = true
}

// result is what a finished flight is to a caller of that role.
func (f *flight[K, V]) result(role coalesce.Role) coalesce.Result[V] {
	return coalesce.Result[V]{Val: f.val, Role: role, Err: f.err}
}

// leave leaves all flights that have not ended, and returns the context's error. Those
// that have been abandoned, and are not joined anew, are left too. When everything has
// ended just now, nothing is left, and leave returns nil.
func (b *batch[K, V]) leave() error {
	err := b.ctx.Err()
	left := false
	b.results = make(map[K]coalesce.Result[V], b.keys)
	for _, r := range b.runs {
		for i := range r.flights {
			f := &r.flights[i]
			if b.leaveOne(f.shard, f, nil) {
				left = true
				b.results[f.key] = coalesce.Result[V]{Role: coalesce.Leader, Err: err}
			} else {
				b.results[f.key] = f.result(coalesce.Leader)
			}
		}
	}
	for _, fo := range b.follows {
		if b.leaveOne(fo.s, fo.f, fo) || fo.f.abandoned {
			left = true
			b.results[fo.f.key] = coalesce.Result[V]{Role: coalesce.LocalFollower, Err: err}
		} else {
			b.results[fo.f.key] = fo.f.result(coalesce.LocalFollower)
		}
	}
	if left {
		return err
	}
	b.overtaken = true
	b.collect()
	return nil
}

// leaveOne leaves a flight that the batch runs the function of, or follows: then fo is
// its part in it. It returns false when the flight has ended.
func (b *batch[K, V]) leaveOne(s *shard[K, V], f *flight[K, V], fo *follow[K, V]) bool {
	s.mu.Lock()
	if f.finished {
		s.mu.Unlock()
		return false
	}
	if fo != nil {
		fo.unfollow()
	}
	last := s.leave(f)
	s.mu.Unlock()
	if last {
		f.cancel()
	}
	return true
}

// unwind does to the caller's stack what its function did to its own.
func (b *batch[K, V]) unwind() {
	if b.panicked != nil {
		panic(b.panicked)
	}
	if b.exited {
		runtime.Goexit()
	}
}

// recycle lets the memory of runs be used again that nobody else can hold.
func (b *batch[K, V]) recycle() {
	if b.overtaken {
		return // a run may be about to tell that it has ended
	}
	for _, r := range b.runs {
		r.recycle()
	}
}
