package coalescetest

import (
	"context"
	"reflect"
	"runtime"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/outcomes"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// DoMany makes Group a coalesce.Group.
func (g *Group[V]) DoMany(ctx context.Context, keys []string, fn func(context.Context, []string) (map[string]V, error)) (map[string]coalesce.Result[V], error) {
	ended := ctx.Err()
	results := make(map[string]coalesce.Result[V], len(keys))
	var distinct []string
	for _, key := range keys {
		if _, twice := results[key]; !twice {
			results[key] = coalesce.Result[V]{Err: ended}
			distinct = append(distinct, key)
		}
	}
	if ended != nil || len(distinct) == 0 {
		return results, ended
	}
	b := &batch[V]{g: g, ctx: ctx, fn: fn, results: results, news: make(chan struct{}, 1), over: make(chan struct{}, 1)}
	b.join(distinct)
	if err := b.wait(); err != nil {
		return results, err
	}
	b.unwind()
	return results, nil
}

// batch is one call of DoMany.
type batch[V any] struct {
	g   *Group[V]
	ctx context.Context // the caller's
	fn  func(context.Context, []string) (map[string]V, error)

	// Of the caller's goroutine.
	results map[string]coalesce.Result[V]
	parts   map[*part[V]]struct{} // that the caller waits for

	// Each has room for one.
	news chan struct{} // flights of the fleet that it follows have ended
	over chan struct{} // flights of this replica have ended

	// Guarded by the fleet's mu.
	overs []*part[V]   // whose flights of this replica have ended
	ended []*member[V] // that follow, and whose flight has ended or whose callers have left
	lost  error        // what became of its own function, if that did not return
}

// part is one key of a batch.
type part[V any] struct {
	key    string
	joined local.Joined[string, V]
	member *member[V] // nil: another caller of its replica leads
}

// member is one key of a batch that leads its own replica's callers.
type member[V any] struct {
	call[V]
	joined local.Joined[string, V]
	ctx    context.Context // ends when no caller of this replica waits
	j      joined
	gone   func() bool // stops the watch over ctx
	told   bool        // it is among the batch's ended; guarded by the fleet's mu
}

// join joins keys on this replica, and those that it leads there in the fleet.
func (b *batch[V]) join(keys []string) {
	if b.parts == nil {
		b.parts = map[*part[V]]struct{}{}
	}
	var led []*member[V]
	for _, key := range keys {
		p := &part[V]{key: key, joined: b.g.local.Join(key)}
		if p.joined.Leads() {
			p.member = &member[V]{call: call[V]{g: b.g, key: key}, joined: p.joined}
			p.member.ctx = p.joined.Start(b.ctx)
			led = append(led, p.member)
		}
		b.parts[p] = struct{}{}
		p.joined.OnEnd(func() { b.isOver(p) })
	}
	if len(led) > 0 {
		go b.follow(b.settle(led))
	}
}

func (b *batch[V]) isOver(p *part[V]) {
	b.g.fleet.mu.Lock()
	defer b.g.fleet.mu.Unlock()
	b.overs = append(b.overs, p)
	select {
	case b.over <- struct{}{}:
	default:
	}
}

// wait waits for the results of all keys. It joins those anew that have been abandoned.
func (b *batch[V]) wait() error {
	for len(b.parts) > 0 {
		select {
		case <-b.over:
		case <-b.ctx.Done():
			return b.leave()
		}
		b.g.fleet.mu.Lock()
		overs := b.overs
		b.overs = nil
		b.g.fleet.mu.Unlock()
		var again []string
		for _, p := range overs {
			if p.joined.Abandoned() {
				if b.ctx.Err() != nil {
					return b.leave()
				}
				again = append(again, p.key)
			}
			b.take(p)
			delete(b.parts, p)
		}
		b.join(again)
	}
	return nil
}

// take makes the result of p, whose caller leaves it if it has not ended. It says whether
// it was left.
func (b *batch[V]) take(p *part[V]) (left bool) {
	r := coalesce.Result[V]{Role: coalesce.LocalFollower}
	val, err := p.joined.Outcome(b.ctx)
	left = val == nil || p.joined.Abandoned()
	if p.member != nil {
		r.Role = coalesce.Role(p.member.role.Load())
	}
	if r.Err = err; left {
		r.Err = b.ctx.Err()
	} else {
		r.Val = *val
	}
	b.results[p.key] = r
	return left
}

// leave leaves all keys that are not there.
func (b *batch[V]) leave() error {
	var err error
	for p := range b.parts {
		if b.take(p) {
			err = b.ctx.Err()
		}
	}
	return err
}

// settle has members join the fleet's flights, and one call of the function for those that
// lead, or must run it alone. It returns how many follow.
func (b *batch[V]) settle(members []*member[V]) (following int) {
	fleet := b.g.fleet
	r := &run{}
	r.ctx.First = b.ctx
	var running []*member[V]
	var ready []*member[V]
	fleet.mu.Lock()
	for _, m := range members {
		m.j = fleet.joinLocked(r, place{b.g.name, m.key})
		switch {
		case m.j.leads:
			running = append(running, m)
			m.is(coalesce.Leader)
		case m.j.flight != nil:
			following++
			m.is(coalesce.RemoteFollower)
			m.told = false
			m.j.flight.batches = append(m.j.flight.batches, func() { b.tellLocked(m) })
			m.gone = context.AfterFunc(m.ctx, func() { b.unfollow(m) })
		default:
			ready = append(ready, m)
		}
	}
	fleet.mu.Unlock()
	for _, m := range ready {
		if !m.takes(m.j.kept, coalesce.Cached) {
			running = append(running, m)
		}
	}
	if len(running) > 0 {
		b.start(r, running)
	}
	return following
}

// tellLocked says that m has nothing to wait for any more.
func (b *batch[V]) tellLocked(m *member[V]) {
	if m.told {
		return
	}
	m.told = true
	b.ended = append(b.ended, m)
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// unfollow says that no caller of this replica waits for what m follows.
func (b *batch[V]) unfollow(m *member[V]) {
	fleet, f := m.g.fleet, m.j.flight
	fleet.mu.Lock()
	defer fleet.mu.Unlock()
	if !f.ended {
		f.followers--
		fleet.changed.Broadcast()
		f.cancelIfLeft()
		b.tellLocked(m)
	}
}

// follow sees to it that members that follow get what their flights come to. Those whose
// leaders are gone at the same moment join anew together.
func (b *batch[V]) follow(following int) {
	for following > 0 {
		<-b.news
		b.g.fleet.mu.Lock()
		ended := b.ended
		b.ended = nil
		b.g.fleet.mu.Unlock()
		var again, running []*member[V]
		for _, m := range ended {
			following--
			m.gone()
			if err := m.ctx.Err(); err != nil { // nobody waits for it
				var none V
				m.end(none, err, true)
				continue
			}
			o := m.j.flight.outcome
			switch {
			case o.fate == joinAnew:
				m.is(0)
				again = append(again, m)
			case !m.takes(o, coalesce.RemoteFollower):
				running = append(running, m)
			}
		}
		if len(again) > 0 {
			following += b.settle(again)
		}
		if len(running) > 0 {
			r := &run{}
			r.ctx.First = b.ctx
			b.start(r, running)
		}
	}
}

// takes ends m with what its flight came to. It returns false when m must run the function
// alone.
func (m *member[V]) takes(o outcome, role coalesce.Role) bool {
	var val V
	switch {
	case o.fate == noRedis && m.g.failClosed:
		m.is(0)
		m.end(val, coalesce.ErrUnavailable, true)
		return true
	case o.err != nil: // a poisoned key has no role
		m.end(val, o.err, true)
		return true
	case o.fate == takeResult && o.of == reflect.TypeFor[V]():
		decoded, err := decode[V](o.value)
		if err == nil {
			m.is(role)
			m.end(decoded, nil, true)
			return true
		}
	}
	m.is(coalesce.Fallback)
	return false
}

// end ends the flight of m on this replica.
func (m *member[V]) end(val V, err error, returned bool) {
	if m.role.Load() != 0 {
		m.g.settled.Add(-1)
	}
	m.joined.End(val, err, returned).Tell()
}

// run is one call of a batch's function.
type run struct {
	ctx    detached.Context
	wanted int // keys that somebody waits for; guarded by the fleet's mu
}

func (r *run) leftLocked() {
	if r.wanted--; r.wanted == 0 {
		r.ctx.End(context.Canceled)
	}
}

// start calls the function for members that lead or run it alone.
func (b *batch[V]) start(r *run, members []*member[V]) {
	fleet := b.g.fleet
	fleet.mu.Lock()
	r.wanted = len(members)
	fleet.mu.Unlock()
	keys := make([]string, len(members))
	stops := make([]func() bool, len(members))
	for i, m := range members {
		keys[i] = m.key
		stops[i] = context.AfterFunc(m.ctx, func() {
			if m.j.leads {
				m.j.flight.leave()
				return
			}
			fleet.mu.Lock()
			defer fleet.mu.Unlock()
			r.leftLocked()
		})
	}
	end := func(o outcomes.Outcomes[string, V]) {
		for _, stop := range stops {
			stop()
		}
		b.returned(members, o)
		r.ctx.End(context.Canceled)
	}
	go func() { end(outcomes.Run(&r.ctx, keys, b.fn, end)) }()
}

// returned ends the flights of members. Followers on other replicas are told first, and
// of all keys at the same moment.
func (b *batch[V]) returned(members []*member[V], o outcomes.Outcomes[string, V]) {
	told := make([]outcome, len(members))
	for i, m := range members {
		switch val, err := o.Key(m.key); {
		case !m.j.leads:
		case o.Returned():
			told[i] = outcomeOf(m.j.flight, val, err)
		default:
			told[i] = panicOutcome(err)
		}
	}
	fleet := b.g.fleet
	fleet.mu.Lock()
	if !o.Returned() {
		b.lost = o.Err()
	}
	for i, m := range members {
		if m.j.leads {
			m.j.flight.endLocked(told[i])
		}
	}
	fleet.mu.Unlock()
	for _, m := range members {
		val, err := o.Key(m.key)
		m.end(val, err, o.Returned())
	}
}

// unwind does to the caller's stack what its function did to its own.
func (b *batch[V]) unwind() {
	b.g.fleet.mu.Lock()
	lost := b.lost
	b.g.fleet.mu.Unlock()
	if panicked, ok := lost.(*coalesce.PanicError); ok {
		panic(panicked)
	}
	if lost != nil {
		runtime.Goexit()
	}
}
