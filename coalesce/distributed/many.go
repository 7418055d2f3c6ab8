package distributed

import (
	"context"
	"runtime"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// DoMany is Do for many keys, with one call of fn for all those that nobody in the fleet
// runs a function for: fn is given these, each once, in the order of keys. The others are
// followed, each by itself. fn does not wait for them, so that batches never wait for each
// other, whatever the order of their keys. A Do follows a key of a batch, and the other way
// round. A key that is given twice counts once.
//
// It costs Redis one round trip to join, and one to finish, for up to 256 keys; on a Redis
// Cluster, for up to as many of each shard. More keys leave in several, two at a time.
//
// The map has a Result for each key, and what it has is what Do would have returned for
// the key: coalesce.ResultOf says how that comes from what fn returned, and so it is for
// callers on other replicas. The error is nil unless ctx has ended first, or With was given
// an option that makes no sense: then that is the error of every key that was not there
// yet, beside the role that it had.
//
// The context of fn has the values of ctx. It ends with the flight timeout, or when nobody
// in the fleet waits for any of its keys any more, which fn learns as that of a Do does. A
// key that nobody waits for any more is given up by itself.
//
// Keys whose flights go away without an outcome, such as those of a leader that has died,
// are joined anew, together with those that do so at the same moment: fn is called another
// time for those that this caller leads then, perhaps while its first call still runs. It
// may so be called by several goroutines at a time. That a result is too large, or cannot be
// encoded, hurts no other key.
//
// When fn panics, DoMany panics with a *coalesce.PanicError once all keys are there, and
// when it calls runtime.Goexit, the goroutine exits. Where another caller's function does
// that on this replica, the key's error is the *coalesce.PanicError or coalesce.ErrGoexit;
// on another, coalesce.ErrRemotePanic.
func (g *Group[V]) DoMany(ctx context.Context, keys []string, fn func(ctx context.Context, keys []string) (map[string]V, error)) (map[string]coalesce.Result[V], error) {
	m := &many[V]{g: g, ctx: ctx, fn: fn, arrived: time.Now(), results: make(map[string]coalesce.Result[V], len(keys)), news: make(chan struct{}, 1)}
	g.batches.Add(1)
	distinct := m.distinct(keys)
	err := g.err
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		for _, key := range distinct {
			m.settle(&caller[V]{key: key}, new(result[V]), 0, err)
		}
	} else {
		m.join(distinct)
		err = m.wait()
	}
	m.tellCalled()
	switch panicked := m.lost.(type) {
	case nil:
	case *coalesce.PanicError:
		panic(panicked)
	default:
		runtime.Goexit()
	}
	return m.results, err
}

// many is one call of DoMany as its caller sees it: its part in a local flight for each
// key. It may lead some of these: their calls are a batch.
type many[V any] struct {
	g       *Group[V]
	ctx     context.Context
	fn      func(context.Context, []string) (map[string]V, error)
	arrived time.Time
	results map[string]coalesce.Result[V]
	waiting map[*caller[V]]struct{} // for flights that have not ended
	calls   []Call                  // what the hooks are told
	lost    error                   // what became of its own function, unless that returned

	mu    sync.Mutex
	ended []*caller[V] // whose flights have ended; guarded by mu
	news  chan struct{}
}

// caller is a part in a local flight.
type caller[V any] struct {
	key    string
	joined local.Joined[string, result[V]]
	call   *call[V] // that it leads; nil: it follows, or the Fleet is closed
}

func (m *many[V]) distinct(keys []string) []string {
	distinct := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, twice := m.results[key]; !twice {
			m.results[key] = coalesce.Result[V]{}
			distinct = append(distinct, key)
		}
	}
	return distinct
}

// join joins the local flights of keys, and has those begin that it leads.
func (m *many[V]) join(keys []string) {
	if m.waiting == nil {
		m.waiting = make(map[*caller[V]]struct{}, len(keys))
	}
	b := m.g.newBatch(m.fn)
	callers := make([]caller[V], len(keys))
	var calls []*call[V]
	for i, key := range keys {
		p := &callers[i]
		p.key, p.joined = key, m.g.local.Join(key)
		if p.joined.Leads() {
			if p.call = m.g.newCall(m.ctx, p.joined, key, m.arrived); p.call != nil {
				b.add(p.call, i)
				calls = append(calls, p.call)
			}
		}
		if !p.joined.Leads() {
			m.g.waits(key, m.arrived)
		}
		m.waiting[p] = struct{}{}
	}
	b.begin(calls)
	for i := range callers {
		p := &callers[i]
		p.joined.OnEnd(func() { m.tell(p) })
	}
}

func (m *many[V]) tell(p *caller[V]) {
	m.mu.Lock()
	m.ended = append(m.ended, p)
	m.mu.Unlock()
	select {
	case m.news <- struct{}{}:
	default:
	}
}

// wait returns when all keys have their results, or with ctx.Err() when ctx ends first.
func (m *many[V]) wait() error {
	var late <-chan time.Time
	if m.g.mixed.Load() { // a flight that this caller follows may take longer than its own may
		timer := time.NewTimer(time.Until(m.arrived.Add(m.g.set.flightTimeout)))
		defer timer.Stop()
		late = timer.C
	}
	for {
		m.take()
		if len(m.waiting) == 0 {
			return nil
		}
		select {
		case <-m.news:
		case <-late:
			m.leave(func(p *caller[V]) bool { return !p.joined.Leads() }, coalesce.ErrFlightTimeout)
		case <-m.ctx.Done():
			if m.leave(func(*caller[V]) bool { return true }, m.ctx.Err()) {
				return m.ctx.Err()
			}
			return nil
		}
	}
}

// take takes the results of the flights that have ended, and joins anew those of which this
// caller may not have them.
func (m *many[V]) take() {
	m.mu.Lock()
	ended := m.ended
	m.ended = nil
	m.mu.Unlock()
	var anew []string
	for _, p := range ended {
		if _, waits := m.waiting[p]; !waits {
			continue // it has left
		}
		if r, err := p.joined.Outcome(m.ctx); r != nil && m.mayHave(p, r, err) {
			m.settle(p, r, roleOf(p, r), err)
		} else {
			anew = append(anew, p.key)
			delete(m.waiting, p)
		}
	}
	if len(anew) > 0 {
		m.join(anew)
	}
}

// mayHave says whether p's caller may have what its flight came to. Who leads it must.
func (m *many[V]) mayHave(p *caller[V], r *result[V], err error) bool {
	return p.joined.Leads() || m.g.takes(r, err, m.arrived)
}

func roleOf[V any](p *caller[V], r *result[V]) coalesce.Role {
	if p.joined.Leads() {
		return r.role
	}
	return coalesce.LocalFollower
}

// leave leaves the flights that are chosen and have not ended, with err. It returns false
// when all of them have.
func (m *many[V]) leave(chosen func(*caller[V]) bool, err error) (left bool) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for p := range m.waiting {
		if !chosen(p) {
			continue
		}
		if r, ended := p.joined.Outcome(gone); r != nil && m.mayHave(p, r, ended) {
			m.settle(p, r, roleOf(p, r), ended)
			continue
		}
		left = true
		role := coalesce.LocalFollower
		if p.joined.Leads() {
			role = 0
			if p.call != nil {
				role = coalesce.Role(p.call.role.Load())
			}
		}
		m.settle(p, new(result[V]), role, err)
	}
	return left
}

// settle gives a key its result.
func (m *many[V]) settle(p *caller[V], r *result[V], role coalesce.Role, err error) {
	delete(m.waiting, p)
	m.results[p.key] = coalesce.Result[V]{Val: r.val, Role: role, Err: err}
	if r.lost && p.joined.Leads() {
		m.lost = err
	}
	if len(m.g.hooks.called) > 0 {
		m.calls = append(m.calls, Call{Group: m.g.name, Key: p.key, Flight: r.flight, Trace: r.trace, Role: role, Err: err, Wait: time.Since(m.arrived)})
	}
}

// tellCalled tells the hooks of each key.
func (m *many[V]) tellCalled() {
	for _, call := range m.calls {
		m.g.hooks.callEnded(m.ctx, call)
	}
}
