package history_test

import (
	"slices"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

type simProcess struct {
	name    string
	dead    bool
	stopped int64 // it does not run until then
	local   map[string]*simFlight
}

// simKey is the state of a key in Redis.
type simKey struct {
	lease    *simFlight
	until    int64
	attempts int
}

// simFlight is a local flight with its flight id.
type simFlight struct {
	process   *simProcess
	key       string
	name      string
	callers   []*simCall
	function  *simCall // the call whose function it runs
	role      string
	follows   *simFlight // nil while it joins again
	followed  bool
	followers []*simFlight // those that have joined
	detached  bool
	ended     int64 // 0: it is running
	stored    bool  // Redis has its outcome
	abandoned bool
}

type simCall struct {
	at       int64
	process  int
	key      string
	runs     int64 // how long its function would run
	outcome  history.Outcome
	patience int64 // after which it leaves; 0: it stays
	name     string
	called   int64
	done     bool
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
				s.after(s.soon(), f.process, func() { s.join(f) }) // the holder is of its own process and has ended
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

// answer gives the result to those callers of a local flight that came at latest or
// before. The others join again.
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
			return // the message is not sent, and followers look for the outcome
		}
		for _, follower := range f.followers {
			s.after(s.soon(), follower.process, func() { s.receive(follower, f) })
		}
	})
}

// receive gives the result of another flight to those who came before its function had
// ended.
func (s *simulation) receive(f, from *simFlight) {
	if f.follows != from || f.role != "" {
		return
	}
	f.role = "remote-follower"
	s.answer(f, history.Record{Role: f.role, Outcome: from.function.outcome, Flight: from.name, Execution: "x" + from.name}, from.ended)
}

// look is what a follower does when the lease that it saw has expired.
func (s *simulation) look(f, at *simFlight) {
	if f.role != "" || f.follows != at || f.empty() {
		return
	}
	k := s.keys[f.key]
	switch {
	case s.down:
		s.after(int64(settings.RedisTimeout), f.process, func() { s.lead(f, "fallback", "timeout") })
	case at.stored:
		s.receive(f, at)
	case k.lease == at && k.until > s.now:
		s.after(k.until-s.now+ms, f.process, func() { s.look(f, at) })
	case at.detached && at.ended == 0 && !at.process.dead:
		s.after(int64(settings.LeaseTTL), f.process, func() { s.look(f, at) })
	default:
		f.follows = nil // a late message no longer concerns it, so it may lead
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
