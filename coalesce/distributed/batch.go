package distributed

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
)

// batch is one call of DoMany, as its keys' calls see it. Each of them goes its own way
// through the protocol, as the call of a Do. What they do at one moment they do together,
// in a wave: they join in one round trip, and the function is called once for all that
// lead, or fall back, when these joins have been answered.
//
// Nobody waits for an outcome to begin: a call that follows belongs to no wave. So two
// batches never wait for each other, whatever the order of their keys:
//
//	batch 1: join a → lead, join b → follow: the function runs for a
//	batch 2: join b → lead, join a → follow: the function runs for b
//
// The first wave has all keys. Later ones have those whose flight went away without an
// outcome. When a leader dies, the leases of its flights run out about the same time, and
// each call notices it by itself. A call that is about to join again waits for the others:
//
//	leases of a, b run out, b's 5 ms later; that of c has another leader, which lives
//	call of a: peek → gone, opens a wave
//	call of b: has heard nothing of its leader for so long that it is due soon: is waited for
//	call of c: has heard of its leader: is not waited for
//	call of b: peek → gone, joins the wave: it is complete, and leaves
//
// A wave waits for earlier joins to be answered, too.
type batch[V any] struct {
	g  *Group[V]
	fn func(ctx context.Context, keys []string) (map[string]V, error)

	mu     sync.Mutex
	open   *wave[V]              // that still gathers calls; nil: none
	coming map[*part[V]]struct{} // calls that may join, or join again: part.due says when they will know
}

// part is a call's in its batch.
type part[V any] struct {
	b     *batch[V]
	c     *call[V]
	index int // of its key among those of DoMany

	// Guarded by b.mu.
	wave    *wave[V] // that waits for it, because its join may yet lead; nil: none
	due     time.Time
	held    bool // Redis is to answer its join first, or a finish of this replica's own flight is to be sent
	awaited bool // the open wave waits for it
}

// wave is what calls of one batch do together.
type wave[V any] struct {
	// Guarded by batch.mu.
	joins   []joins[V]
	leads   []*part[V] // for which the function is to run
	awaited int        // calls that may come before the wave leaves
	early   bool       // it must not leave yet, though it waits for none
	falls   bool       // a call that falls back opened it: it does not wait for Redis
	pending int        // joins that may yet lead, and one until all have been sent
	timer   *time.Timer
	limit   time.Time // calls that are due later are not awaited

	answers   []*joined[V] // that nobody has read yet
	answering bool         // a goroutine reads them
}

// joins is a call that joins, and how.
type joins[V any] struct {
	part *part[V]
	how  joining[V]
}

const (
	// lingers is how long a wave gathers calls, if there are any that follow: an abandon of
	// many flights is told in as many messages.
	lingers = 5 * time.Millisecond
	// patienceShare is what part of the lease TTL a wave waits at most for calls that are due.
	// A leader that lives is heard of at each third, so that its followers are never due as
	// soon as that.
	patienceShare = 3
)

func (g *Group[V]) newBatch(fn func(context.Context, []string) (map[string]V, error)) *batch[V] {
	return &batch[V]{g: g, fn: fn, coming: map[*part[V]]struct{}{}}
}

// add makes a call that has not begun a part of the batch.
func (b *batch[V]) add(c *call[V], index int) {
	c.batch = &part[V]{b: b, c: c, index: index}
}

// begin has calls that are of the batch join together.
func (b *batch[V]) begin(calls []*call[V]) {
	if len(calls) == 0 {
		return
	}
	w := &wave[V]{joins: make([]joins[V], 0, len(calls)), pending: len(calls) + 1}
	for _, c := range calls {
		c.batch.wave = w
	}
	defer func() { b.send(w) }()
	each(calls, func(c *call[V]) {
		switch next := c.step(starting[V]{}).(type) {
		case joining[V]:
			w.joins = append(w.joins, joins[V]{c.batch, next})
		case unasked[V]:
			c.proceed(next) // takes no time
		}
	})
}

// each calls do for all of them, though a hook or a log handler ends the goroutine for one:
// then the others have their turn while that exits.
func each[T any](all []T, do func(T)) {
	next := 0
	defer func() {
		if next < len(all) {
			each(all[next:], do)
		}
	}()
	for next < len(all) {
		next++
		do(all[next-1])
	}
}

// join has the call join with others that do so now. It is told by its next state.
func (p *part[V]) join(how joining[V]) {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settle(p) // what it was told leads to another join: nobody waits for that
	w := b.gather(false)
	w.joins = append(w.joins, joins[V]{p, how})
	p.wave = w
	w.pending++
	b.came(p)
}

// ready has the function run for the call, with others for which it runs now.
func (p *part[V]) ready() {
	b := p.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.wave != nil { // its join has been answered
		p.wave.leads = append(p.wave.leads, p)
		b.settle(p)
		b.came(p)
		return
	}
	w := b.gather(true)
	w.leads = append(w.leads, p)
	b.came(p)
}

// comes says that the call follows a flight, of whose end it will know when it is due, or
// awaits the finish of its replica's own.
func (p *part[V]) comes(due time.Time, held bool) {
	if p == nil {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.settle(p)
	p.b.comes(p, due, held)
}

// comes wants b.mu held.
func (b *batch[V]) comes(p *part[V], due time.Time, held bool) {
	p.due, p.held = due, held
	b.coming[p] = struct{}{}
	if b.open == nil {
		return
	}
	switch soon := b.open.awaits(p); {
	case soon && !p.awaited:
		p.awaited = true
		b.open.awaited++
	case !soon && p.awaited:
		p.awaited = false
		b.open.awaited--
		b.mayLeave()
	}
}

// settle says that the call's join leads to no call of the function now.
func (p *part[V]) settle() {
	if p == nil {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.settle(p)
	p.b.came(p)
}

// hasten has a wave leave at once: the time of its calls is over.
func (p *part[V]) hasten() {
	if p == nil {
		return
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	p.b.close()
}

// settle wants b.mu held.
func (b *batch[V]) settle(p *part[V]) {
	if w := p.wave; w != nil {
		p.wave = nil
		b.answered(w)
	}
}

// answered counts down what w waits for before the function is called. It wants b.mu held.
func (b *batch[V]) answered(w *wave[V]) {
	if w.pending--; w.pending > 0 || len(w.leads) == 0 {
		return
	}
	leads := w.leads
	w.leads = nil
	slices.SortFunc(leads, func(x, y *part[V]) int { return x.index - y.index })
	run := &batchRun[V]{b: b}
	b.g.fleet.workers.Run(func() { run.run(leads) })
}

// awaits says whether the wave waits for a call that may come.
func (w *wave[V]) awaits(p *part[V]) bool {
	return !p.due.After(w.limit) && !(p.held && w.falls)
}

// gather returns the wave that gathers calls, for one that joins or falls back. It wants
// b.mu held.
func (b *batch[V]) gather(falls bool) *wave[V] {
	if b.open != nil {
		return b.open
	}
	now := time.Now()
	w := &wave[V]{pending: 1, limit: now.Add(b.g.set.leaseTTL / patienceShare), early: true, falls: falls}
	b.open = w
	for p := range b.coming {
		if p.awaited = w.awaits(p); p.awaited {
			w.awaited++
		}
	}
	w.timer = time.AfterFunc(lingers, func() { b.lingered(w) })
	return w
}

// came says that a call has come to the open wave, or will not come. It wants b.mu held.
func (b *batch[V]) came(p *part[V]) {
	delete(b.coming, p)
	if p.awaited {
		p.awaited = false
		b.open.awaited--
	}
	b.mayLeave()
}

// mayLeave has the open wave leave if it waits for none. It wants b.mu held.
func (b *batch[V]) mayLeave() {
	if w := b.open; w != nil && w.awaited == 0 && (!w.early || len(b.coming) == 0) {
		b.close()
	}
}

// lingered has the wave leave, or wait for those who are awaited.
func (b *batch[V]) lingered(w *wave[V]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.open != w:
	case w.early && w.awaited > 0:
		w.early = false
		w.timer.Reset(time.Until(w.limit))
	default:
		b.close()
	}
}

// close has the open wave leave. It wants b.mu held.
func (b *batch[V]) close() {
	w := b.open
	if w == nil {
		return
	}
	b.open = nil
	w.timer.Stop()
	if w.awaited > 0 {
		for p := range b.coming {
			p.awaited = false
		}
	}
	b.g.fleet.workers.Run(func() { b.send(w) })
}

// send sends the joins of a wave that gathers no more calls.
func (b *batch[V]) send(w *wave[V]) {
	requests := make([]*redislink.Request, 0, len(w.joins))
	defer func() {
		b.g.fleet.link.SendTogether(requests)
		b.mu.Lock()
		defer b.mu.Unlock()
		b.answered(w)
	}()
	each(w.joins, func(j joins[V]) {
		j.part.c.proceed(beside[V](func() {
			if a := j.how.request(j.part.c); a != nil {
				a.sent.Then = func() { b.answer(w, j.part.c, a) }
				requests = append(requests, a.sent)
				b.mu.Lock()
				b.comes(j.part, time.Now(), true)
				b.mu.Unlock()
			}
		}))
	})
}

// answer has a join's answer read, by the goroutine that reads those of its wave. A call
// that goes on waiting gets one of its own.
func (b *batch[V]) answer(w *wave[V], c *call[V], a *joined[V]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.c = c
	w.answers = append(w.answers, a)
	if !w.answering {
		w.answering = true
		b.g.fleet.workers.Run(func() { b.read(w) })
	}
}

func (b *batch[V]) read(w *wave[V]) {
	all := false
	defer func() {
		if !all { // this goroutine exits
			b.g.fleet.workers.Run(func() { b.read(w) })
		}
	}()
	for {
		b.mu.Lock()
		answers := w.answers
		w.answers = nil
		if len(answers) == 0 {
			w.answering = false
			b.mu.Unlock()
			all = true
			return
		}
		b.mu.Unlock()
		each(answers, func(a *joined[V]) {
			switch next := a.c.step(a).(type) {
			case nil:
			case leading[V], fallback[V], joining[V]:
				a.c.proceed(next) // takes no time
			default:
				b.g.fleet.workers.Run(func() { a.c.proceed(next) })
			}
		})
	}
}
