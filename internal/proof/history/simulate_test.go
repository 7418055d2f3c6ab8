package history_test

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// simulation is a fleet that keeps every promise, in a time of its own: one
// event after another, each of one process. What is random and matters is drawn
// by rapid; how long messages and schedulers take is drawn from rand.
type simulation struct {
	rand      *rand.Rand
	now       int64
	queue     events
	records   []history.Record
	processes []*simProcess
	keys      map[string]*simKey
	down      bool // Redis
	names     int
}

type simProcess struct {
	name    string
	dead    bool
	stopped int64 // until then
	local   map[string]*simFlight
}

// simKey is what Redis has of a key.
type simKey struct {
	lease    *simFlight
	until    int64
	attempts int
}

// simFlight is one local flight, and one flight id.
type simFlight struct {
	process   *simProcess
	key       string
	name      string
	callers   []*simCall
	function  *simCall // whose function it runs
	role      string
	follows   *simFlight // nil again while it joins anew
	followed  bool
	followers []*simFlight // joined
	detached  bool
	ended     int64 // 0: it runs
	stored    bool  // its outcome is in Redis
	abandoned bool
}

type simCall struct {
	at       int64
	process  int
	key      string
	runs     int64 // how long its function would
	outcome  history.Outcome
	patience int64 // 0: it does not leave
	name     string
	called   int64
	done     bool
}

type event struct {
	at      int64
	process *simProcess // nil: Redis or the driver
	do      func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

const (
	ms     = int64(time.Millisecond)
	second = int64(time.Second)
)

func (s *simulation) after(d int64, p *simProcess, do func()) {
	heap.Push(&s.queue, event{s.now + d, p, do})
}

// soon is how long a message or a scheduler takes.
func (s *simulation) soon() int64 { return 50_000 + s.rand.Int64N(10*ms) }

func (s *simulation) run() {
	for len(s.queue) > 0 {
		e := heap.Pop(&s.queue).(event)
		s.now = max(s.now, e.at)
		switch p := e.process; {
		case p == nil:
			e.do()
		case p.dead:
		case p.stopped > s.now:
			s.after(p.stopped-s.now+s.soon(), p, e.do)
		default:
			e.do()
		}
	}
}

func (s *simulation) write(p *simProcess, r history.Record) {
	s.now++ // no two records have one time
	r.At = s.now
	r.Process = "driver"
	if p != nil {
		r.Process = p.name
	}
	s.records = append(s.records, r)
}

func (s *simulation) name(of string) string {
	s.names++
	return fmt.Sprint(of, s.names)
}

func (s *simulation) call(c *simCall) {
	p := s.processes[c.process]
	c.name = s.name("c")
	r := history.Record{Kind: history.Called, Key: c.key, Call: c.name}
	if c.patience > 0 {
		r.Deadline = s.now + c.patience
		s.after(c.patience, p, func() { s.leave(c) })
	}
	s.write(p, r)
	c.called = s.now
	s.after(s.soon()/20, p, func() { s.enter(p, c) })
}

func (s *simulation) enter(p *simProcess, c *simCall) {
	if c.done {
		return
	}
	if f := p.local[c.key]; f != nil {
		f.callers = append(f.callers, c)
		return
	}
	f := &simFlight{process: p, key: c.key, name: s.name("f"), callers: []*simCall{c}, function: c}
	p.local[c.key] = f
	s.join(f)
}

func (f *simFlight) empty() bool {
	return !slices.ContainsFunc(f.callers, func(c *simCall) bool { return !c.done })
}

func (f *simFlight) forget() {
	if f.process.local[f.key] == f {
		delete(f.process.local, f.key)
	}
}

func (s *simulation) leave(c *simCall) {
	p := s.processes[c.process]
	if c.done {
		return
	}
	c.done = true
	s.write(p, history.Record{Kind: history.Returned, Key: c.key, Call: c.name, Role: "none", Outcome: history.Cancelled})
	f := p.local[c.key]
	if f == nil || !slices.Contains(f.callers, c) || !f.empty() {
		return
	}
	f.forget()
	if f.role == "leader" && f.ended == 0 && len(f.followers) == 0 && !s.down {
		f.abandoned = true
		asked := s.now
		k := s.keys[f.key]
		if k.lease == f {
			k.lease = nil
			k.attempts--
		}
		s.after(s.soon(), p, func() { s.lease(f, "released", asked) })
	}
}

func (s *simulation) lease(f *simFlight, state string, asked int64) {
	s.write(f.process, history.Record{Kind: history.LeaseIs, Key: f.key, Flight: f.name, State: state, Asked: asked})
}

func (s *simulation) join(f *simFlight) {
	if f.empty() {
		f.forget()
		return
	}
	asked := s.now
	if s.down {
		s.after(int64(settings.RedisTimeout), f.process, func() { s.lead(f, "fallback", "timeout") })
		return
	}
	s.after(s.soon(), nil, func() {
		if s.down {
			s.after(int64(settings.RedisTimeout), f.process, func() { s.lead(f, "fallback", "timeout") })
			return
		}
		k := s.keys[f.key]
		switch {
		case f.process.dead:
		case k.lease != nil && k.until > s.now:
			holder := k.lease
			if holder.process == f.process && holder.ended != 0 && holder.ended < asked {
				s.after(s.soon(), f.process, func() { s.join(f) }) // its own that has ended
				return
			}
			holder.followers = append(holder.followers, f)
			f.follows, f.followed = holder, true
			s.after(k.until-s.now+ms, f.process, func() { s.look(f, holder) })
		case k.attempts > settings.MaxTakeovers:
			s.after(s.soon(), f.process, func() {
				s.answer(f, history.Record{Role: "none", Outcome: history.Poisoned}, never)
			})
		default:
			k.attempts++
			k.lease, k.until = f, s.now+int64(settings.LeaseTTL)
			s.after(s.soon(), f.process, func() {
				s.lease(f, "taken", asked)
				s.renew(f)
				s.lead(f, "leader", "")
			})
		}
	})
}

const never = int64(1) << 62

// lead runs the function.
func (s *simulation) lead(f *simFlight, role, cause string) {
	if f.role != "" {
		return
	}
	f.role = role
	s.write(f.process, history.Record{Kind: history.Started, Key: f.key, Flight: f.name, Execution: "x" + f.name, Role: role, Cause: cause, Takeover: f.followed})
	s.after(f.function.runs, f.process, func() { s.end(f) })
}

func (s *simulation) renew(f *simFlight) {
	s.after(int64(settings.LeaseTTL)/3, f.process, func() {
		if f.ended != 0 || f.abandoned {
			return
		}
		asked, k := s.now, s.keys[f.key]
		switch {
		case s.down:
		case f.detached:
		case k.lease == f && k.until > s.now:
			k.until = s.now + int64(settings.LeaseTTL)
			s.lease(f, "renewed", asked)
		default:
			s.lease(f, "lost", asked)
			return
		}
		s.renew(f)
	})
}

func (s *simulation) end(f *simFlight) {
	outcome := f.function.outcome
	if f.abandoned {
		outcome = history.Cancelled
	}
	s.write(f.process, history.Record{Kind: history.Ended, Key: f.key, Flight: f.name, Execution: "x" + f.name, Outcome: outcome})
	f.ended = s.now
	if f.abandoned {
		return
	}
	s.answer(f, history.Record{Role: f.role, Outcome: outcome, Flight: f.name, Execution: "x" + f.name}, never)
	if f.role == "leader" {
		s.finish(f)
	}
}

// answer gives the result to the callers of a local flight that came no later
// than latest; the others join again.
func (s *simulation) answer(f *simFlight, r history.Record, latest int64) {
	f.forget()
	var late []*simCall
	for i, c := range f.callers {
		switch {
		case c.done:
		case c.called > latest:
			late = append(late, c)
		default:
			r := r
			r.Kind, r.Key, r.Call = history.Returned, f.key, c.name
			if i > 0 && r.Execution != "" {
				r.Role = "local-follower"
			}
			c.done = true
			s.after(s.soon()/20, f.process, func() { s.write(f.process, r) })
		}
	}
	for _, c := range late {
		s.enter(f.process, c)
	}
}

func (s *simulation) finish(f *simFlight) {
	asked := s.now
	s.after(s.soon(), f.process, func() {
		if s.down {
			s.after(100*ms, f.process, func() { s.finish(f) })
			return
		}
		k := s.keys[f.key]
		if k.lease == f {
			k.lease = nil
		}
		if k.lease == nil {
			k.attempts = 0
		}
		f.stored = true
		s.lease(f, "released", asked)
		if asked-f.ended > ms {
			return // followers look
		}
		for _, follower := range f.followers {
			s.after(s.soon(), follower.process, func() { s.receive(follower, f, never) })
		}
	})
}

func (s *simulation) receive(f, from *simFlight, latest int64) {
	if f.follows != from || f.role != "" {
		return
	}
	f.role = "remote-follower"
	s.answer(f, history.Record{Role: f.role, Outcome: from.function.outcome, Flight: from.name, Execution: "x" + from.name}, latest)
}

// look is what a follower does when the lease it saw has run out.
func (s *simulation) look(f, at *simFlight) {
	if f.role != "" || f.follows != at || f.empty() {
		return
	}
	k := s.keys[f.key]
	switch {
	case s.down:
		s.after(int64(settings.RedisTimeout), f.process, func() { s.lead(f, "fallback", "timeout") })
	case at.stored:
		s.receive(f, at, at.ended)
	case k.lease == at && k.until > s.now:
		s.after(k.until-s.now+ms, f.process, func() { s.look(f, at) })
	case at.detached && at.ended == 0 && !at.process.dead:
		s.after(int64(settings.LeaseTTL), f.process, func() { s.look(f, at) })
	default:
		f.follows = nil // a late message is not for it: it may lead
		s.join(f)
	}
}

func (s *simulation) forget(p *simProcess, key string) {
	name := s.name("g")
	s.write(p, history.Record{Kind: history.Forget, Key: key, Call: name})
	failed := s.down
	s.after(s.soon(), nil, func() {
		if s.down || failed {
			failed = true
			return
		}
		k := s.keys[key]
		if k.lease != nil && k.until > s.now {
			k.lease.detached = true
		}
		k.lease, k.attempts = nil, 0
		for _, other := range s.processes {
			if other != p {
				s.after(s.soon(), other, func() { delete(other.local, key) })
			}
		}
	})
	s.after(15*ms, p, func() {
		delete(p.local, key)
		r := history.Record{Kind: history.Forgotten, Key: key, Call: name}
		if failed {
			r.Error = "timeout"
		}
		s.write(p, r)
	})
}

func (s *simulation) fault(name string, target *simProcess, effects history.Effects, lasts int64, begin, end func()) {
	r := history.Record{Kind: history.FaultBegin, Fault: name, Effects: &effects}
	if target != nil {
		r.Target = target.name
	}
	s.write(nil, r)
	begin()
	s.after(lasts, nil, func() {
		end()
		r := r
		r.Kind, r.Effects = history.FaultEnd, nil
		s.write(nil, r)
	})
}

// disturbance is what the driver may do to a simulation.
type disturbance struct {
	at     int64
	kind   string
	target int
	lasts  int64
	key    string
}

func (s *simulation) disturb(d disturbance) {
	p := s.processes[d.target]
	if p.dead {
		return
	}
	switch d.kind {
	case "kill":
		s.fault("kill", p, history.Effects{Kills: true}, ms, func() { p.dead = true }, func() {})
	case "stop":
		if p.stopped < s.now {
			s.fault("stop", p, history.Effects{Stops: true}, d.lasts, func() { p.stopped = s.now + d.lasts }, func() {})
		}
	case "pause":
		if !s.down {
			s.fault("pause", nil, history.Effects{Unusable: true, LosesMessages: true}, d.lasts,
				func() { s.down = true }, func() { s.down = false })
		}
	case "forget":
		if p.stopped < s.now {
			s.forget(p, d.key)
		}
	}
}

// simulate draws a history of a fleet that keeps its promises; when things
// happen comes from a seed, because rapid likes small numbers. A calm one has no
// faults, no Forgets, and no callers that leave.
func simulate(t *rapid.T, calm bool) []history.Record {
	s := &simulation{rand: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), keys: map[string]*simKey{}}
	names := []string{"k", "l"}[:rapid.IntRange(1, 2).Draw(t, "keys")]
	for _, key := range names {
		s.keys[key] = &simKey{}
	}
	count := rapid.IntRange(2, 5).Draw(t, "processes")
	for i := range count {
		p := &simProcess{name: fmt.Sprintf("r%d", i), local: map[string]*simFlight{}}
		s.processes = append(s.processes, p)
		s.write(p, history.Record{Kind: history.Begin, Settings: &settings})
	}
	someKey, someProcess := rapid.SampledFrom(names), rapid.IntRange(0, count-1)
	calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *simCall {
		c := &simCall{
			at:      s.rand.Int64N(12 * second),
			process: someProcess.Draw(t, "process"),
			key:     someKey.Draw(t, "key"),
			runs:    ms + s.rand.Int64N(3*second),
			outcome: rapid.SampledFrom([]history.Outcome{history.Value, history.Value, history.KnownError, history.OtherError, history.Panic}).Draw(t, "outcome"),
		}
		if !calm && rapid.Bool().Draw(t, "leaves") {
			c.patience = ms + s.rand.Int64N(8*second)
		}
		return c
	}), 20, 80).Draw(t, "calls")
	for _, c := range calls {
		heap.Push(&s.queue, event{c.at, s.processes[c.process], func() { s.call(c) }})
	}
	if !calm {
		for _, d := range rapid.SliceOfN(rapid.Custom(func(t *rapid.T) disturbance {
			return disturbance{
				at:     s.rand.Int64N(12 * second),
				kind:   rapid.SampledFrom([]string{"kill", "stop", "pause", "forget"}).Draw(t, "kind"),
				target: someProcess.Draw(t, "target"),
				lasts:  10*ms + s.rand.Int64N(8*second),
				key:    someKey.Draw(t, "key"),
			}
		}), 0, 5).Draw(t, "disturbances") {
			heap.Push(&s.queue, event{d.at, nil, func() { s.disturb(d) }})
		}
	}
	s.run()
	for _, p := range s.processes {
		if !p.dead {
			s.write(p, history.Record{Kind: history.Closing})
			s.write(p, history.Record{Kind: history.Exit})
		}
	}
	return s.records
}

func sortRecords(records []history.Record) []history.Record {
	slices.SortStableFunc(records, func(a, b history.Record) int { return cmp.Compare(a.At, b.At) })
	return records
}
