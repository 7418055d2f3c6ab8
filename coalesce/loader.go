package coalesce

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// Loader collects single calls into batches: it waits a moment for more of them, and then
// calls DoMany for all. It is for code that asks for one thing at a time in many places,
// such as the resolvers of a GraphQL request.
//
// A Loader belongs to one request: its functions run with the values of the context that
// it was made with, and of no other's. Make a new one for each request; it is cheap, has
// no goroutine while nothing is under way, and needs no closing. Requests share their
// queries all the same, through the Group.
//
// It is no cache: a key that is asked for again in the same moment counts once, and one
// that is asked for later is called for anew.
type Loader[V any] struct {
	ctx   context.Context
	group Group[V]
	fn    func(context.Context, []string) (map[string]V, error)
	set   loaderSettings

	mu    sync.Mutex
	batch *loading[V] // that collects; nil: nobody has asked since the last was called
}

// loading is a batch of a Loader.
type loading[V any] struct {
	keys  []string
	known map[string]bool
	timer *time.Timer // nil: only Flush ends the moment

	// Written before done is closed.
	done     chan struct{}
	results  map[string]Result[V]
	panicked *PanicError
}

// LoaderOption is a setting of a Loader.
type LoaderOption func(*loaderSettings) error

type loaderSettings struct {
	moment time.Duration // zero: until Flush
	most   int
}

// Defaults of a Loader.
const (
	DefaultMoment   = time.Millisecond
	DefaultMaxBatch = 1000
)

// CollectFor makes a Loader wait so long for more calls after the first; moment has to be
// over zero. Without it, that is DefaultMoment.
func CollectFor(moment time.Duration) LoaderOption {
	return func(s *loaderSettings) error {
		if moment <= 0 {
			return fmt.Errorf("CollectFor(%v) waits for nobody; give it more than zero, or CollectUntilFlush", moment)
		}
		s.moment = moment
		return nil
	}
}

// CollectUntilFlush makes a Loader wait until Flush is called, or the batch is full: for
// callers that know when all have asked.
func CollectUntilFlush() LoaderOption {
	return func(s *loaderSettings) error {
		s.moment = 0
		return nil
	}
}

// MaxBatch bounds the keys of one batch, which is called for when it is full, whatever the
// moment; keys has to be at least 1. Without it, that is DefaultMaxBatch.
func MaxBatch(keys int) LoaderOption {
	return func(s *loaderSettings) error {
		if keys < 1 {
			return fmt.Errorf("MaxBatch(%d) has no room; give it at least 1", keys)
		}
		s.most = keys
		return nil
	}
}

// NewLoader returns a Loader for one request, whose context is ctx: when it ends, all
// callers leave. fn is what DoMany is called with. Without options, a Loader collects for
// DefaultMoment. NewLoader refuses a nil group, function or option, and options that make no
// sense, with an error that says what to do. Of CollectFor and CollectUntilFlush, the later
// one holds.
func NewLoader[V any](ctx context.Context, group Group[V], fn func(ctx context.Context, keys []string) (map[string]V, error), opts ...LoaderOption) (*Loader[V], error) {
	if group == nil || fn == nil {
		return nil, errors.New("fleetcall: NewLoader needs a Group and a function")
	}
	l := &Loader[V]{ctx: ctx, group: group, fn: fn, set: loaderSettings{moment: DefaultMoment, most: DefaultMaxBatch}}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("fleetcall: NewLoader: option %d is nil; leave it out", i+1)
		}
		if err := opt(&l.set); err != nil {
			return nil, fmt.Errorf("fleetcall: NewLoader: %w", err)
		}
	}
	return l, nil
}

// Do asks for a key and waits for its result, as Group.Do does. When ctx ends, this caller
// alone leaves, with ctx.Err() and no role: its batch goes on for the others.
//
// A panic of the batch's function is a panic of every Do of the batch, and
// runtime.Goexit is ErrGoexit.
func (l *Loader[V]) Do(ctx context.Context, key string) (V, Role, error) { return l.Ask(key)(ctx) }

// Ask is Do in two steps: the key is asked for when Ask returns, and the function that it
// returns waits. It may be called any number of times.
func (l *Loader[V]) Ask(key string) func(context.Context) (V, Role, error) {
	b := l.add(key)
	return func(ctx context.Context) (val V, role Role, err error) {
		if err := ctx.Err(); err != nil {
			return val, 0, err
		}
		select {
		case <-b.done:
		case <-ctx.Done():
			return val, 0, ctx.Err()
		case <-l.ctx.Done():
			select {
			case <-b.done:
			case <-ctx.Done():
				return val, 0, ctx.Err()
			default:
				return val, 0, l.ctx.Err()
			}
		}
		if b.panicked != nil {
			panic(b.panicked)
		}
		r := b.results[key]
		return r.Val, r.Role, r.Err
	}
}

// add puts key into the batch that collects.
func (l *Loader[V]) add(key string) *loading[V] {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.batch
	if b == nil {
		b = &loading[V]{known: map[string]bool{}, done: make(chan struct{})}
		l.batch = b
		if l.set.moment > 0 {
			b.timer = time.AfterFunc(l.set.moment, func() { l.momentIsOver(b) })
		}
	}
	if !b.known[key] {
		b.known[key] = true
		b.keys = append(b.keys, key)
		if len(b.keys) == l.set.most {
			l.callLocked()
		}
	}
	return b
}

func (l *Loader[V]) momentIsOver(b *loading[V]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batch == b { // it has not been called for yet
		l.callLocked()
	}
}

// Flush ends the moment: what has been asked for is called for now. It does not wait for
// the results.
func (l *Loader[V]) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.batch != nil {
		l.callLocked()
	}
}

// callLocked calls for the batch that collects, on a goroutine of its own.
func (l *Loader[V]) callLocked() {
	b := l.batch
	l.batch = nil
	if b.timer != nil {
		b.timer.Stop()
	}
	go b.call(l)
}

func (b *loading[V]) call(l *Loader[V]) {
	returned := false
	defer func() {
		if !returned {
			switch value := recover().(type) {
			case nil:
				b.results = failAll[V](b.keys, ErrGoexit)
			case *PanicError:
				b.panicked = value
			default: // of a hook; this goroutine has no caller who could recover it
				b.panicked = &PanicError{Value: value, Stack: debug.Stack()}
			}
		}
		close(b.done)
	}()
	b.results, _ = l.group.DoMany(l.ctx, b.keys, l.fn)
	returned = true
}

func failAll[V any](keys []string, err error) map[string]Result[V] {
	results := make(map[string]Result[V], len(keys))
	for _, key := range keys {
		results[key] = Result[V]{Err: err}
	}
	return results
}
