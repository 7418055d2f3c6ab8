package distributed

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcomes"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
)

// batchRun is one call of a batch's function, for the calls that lead or fall back at one
// moment. Its end is each call's by itself, as that of a function of its own would be. Only
// the commands that tell Redis of it leave together.
type batchRun[V any] struct {
	b *batch[V]
	// ctx is the function's: it has the values of the first call's, and ends with the
	// flight timeout, or when all calls have ended.
	ctx  detached.Timed
	live atomic.Int32 // calls that have not ended, and one until all have begun

	mu       sync.Mutex
	held     bool // calls are being told how the function ended: what is to be encoded waits
	encoders int  // goroutines that encode outcomes
	toFinish []func()
	requests []*redislink.Request // that have the outcomes, and wait for the others
}

// run calls the function for these calls, in the order of their keys.
func (r *batchRun[V]) run(parts []*part[V]) {
	r.live.Store(int32(len(parts)) + 1)
	calls := r.begin(parts)
	if len(calls) == 0 {
		r.leave()
		return
	}
	r.ctx.First, r.ctx.Until = calls[0].ctx, calls[0].deadline.Until
	keys := make([]string, len(calls))
	byKey := make(map[string]*call[V], len(calls))
	for i, c := range calls {
		keys[i], byKey[c.key] = c.key, c
	}
	g := r.b.g
	g.batchRuns.Add(1)
	g.batchKeys.Add(uint64(len(keys)))
	r.leave()
	var ended time.Time
	fn := wrapMany(g.hooks, func(key string) (context.Context, Run) {
		c := byKey[key]
		return &c.deadline, c.asRun()
	}, func(ctx context.Context, keys []string) (map[string]V, error) {
		defer func() { ended = time.Now() }() // before the hooks are told, which takes time
		return r.b.fn(ctx, keys)
	})
	o := outcomes.Run(&r.ctx, keys, fn, func(o outcomes.Outcomes[string, V]) { r.returned(calls, o, ended) })
	r.returned(calls, o, ended)
}

// begin returns the calls that are not over when the function is about to run. A call to
// which something has happened asks Redis, or tells it: whether anybody waits, if its callers
// have left, or that the flight is given up. All such calls do so at a time.
func (r *batchRun[V]) begin(parts []*part[V]) (calls []*call[V]) {
	over := make([]bool, len(parts))
	var asking sync.WaitGroup
	for i, p := range parts {
		e := &p.c.running
		e.mu.Lock()
		e.run = r
		e.mu.Unlock()
		switch {
		case p.c.over.Load(): // perhaps before it had a run to leave
			e.leaveRun()
			over[i] = true
		case p.c.local.Err() != nil || e.hasNews():
			over[i] = true // unless begin comes back and says that it is not
			asking.Go(func() { over[i] = p.c.begin() })
		default:
			over[i] = p.c.begin()
		}
	}
	asking.Wait()
	for i, p := range parts {
		if !over[i] {
			calls = append(calls, p.c)
		}
	}
	return calls
}

// hasNews says whether something has happened that is still to be decided.
func (e *execution[V]) hasNews() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.happened != 0
}

// leaveRun tells the run, if there is one, that the call is over.
func (e *execution[V]) leaveRun() {
	e.mu.Lock()
	run := e.run
	if e.leftRun {
		run = nil
	}
	e.leftRun = run != nil || e.leftRun
	e.mu.Unlock()
	if run != nil {
		run.leave()
	}
}

// leave is called once for each call that has ended.
func (r *batchRun[V]) leave() {
	if r.live.Add(-1) == 0 {
		r.ctx.End(context.Canceled)
	}
}

// returned tells each call what the function came to for it.
func (r *batchRun[V]) returned(calls []*call[V], o outcomes.Outcomes[string, V], ended time.Time) {
	if ended.IsZero() { // a hook panicked before it began
		ended = time.Now()
	}
	r.mu.Lock()
	r.held = true
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.held = false
		r.encoders++
		r.mu.Unlock()
		runtime.Gosched() // the callers' turn, as in Do
		r.finish()
	}()
	each(calls, func(c *call[V]) {
		c.proceed(beside[V](func() {
			back := returned[V]{lost: !o.Returned(), ended: ended}
			back.val, back.err = o.Key(c.key)
			c.cameBackWith(back)
		}))
	})
}

// finishLater has a call's outcome encoded, and then sent, with those of the others.
func (r *batchRun[V]) finishLater(finish func(), c *call[V]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.toFinish = append(r.toFinish, func() { c.proceed(beside[V](finish)) })
	if !r.held && r.encoders == 0 {
		r.encoders++
		r.b.g.fleet.workers.Run(r.finish)
	}
}

// slowCodec is how long a codec may take before another goroutine goes on with what it
// holds up.
const slowCodec = 10 * time.Millisecond

// finish encodes the outcomes that there are, and then sends them. It is counted as an
// encoder.
func (r *batchRun[V]) finish() {
	slow := time.AfterFunc(slowCodec, func() {
		r.mu.Lock()
		r.encoders++
		r.mu.Unlock()
		r.finish()
	})
	for {
		r.mu.Lock()
		if len(r.toFinish) == 0 {
			r.encoders--
			r.mu.Unlock()
			break
		}
		next := r.toFinish[0]
		r.toFinish = r.toFinish[1:]
		r.mu.Unlock()
		next()
	}
	slow.Stop()
	r.send()
}

// add has a request sent with the others.
func (r *batchRun[V]) add(sent *redislink.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, sent)
	r.mu.Unlock()
}

// send sends the requests that there are.
func (r *batchRun[V]) send() {
	r.mu.Lock()
	requests := r.requests
	r.requests = nil
	r.mu.Unlock()
	if len(requests) > 0 {
		r.b.g.fleet.link.SendTogether(requests)
	}
}
