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

// simulation is a fleet that keeps every promise, with a clock of its own. It runs one
// event after another, each in one process. rapid draws the random choices that matter.
// The delays of messages and schedulers come from rand.
type simulation struct {
	rand      *rand.Rand
	now       int64
	queue     events
	records   []history.Record
	processes []*simProcess
	keys      map[string]*simKey
	down      bool // Redis is down
	names     int
}

type event struct {
	at      int64
	process *simProcess // nil: in Redis or the driver
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

// soon returns a random delay of a message or a scheduler.
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
	s.now++ // each record has a time of its own
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

const never = int64(1) << 62

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

// disturbance is something that the driver does to the fleet.
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

// simulate draws a history of a fleet that keeps its promises. The times come from a
// seed, because rapid prefers small numbers. A calm history has no faults, no Forgets,
// and no callers that leave.
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
