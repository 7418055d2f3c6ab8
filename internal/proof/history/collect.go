package history

import "github.com/fleetcall/fleetcall/coalesce"

// The names of the roles in the records.
var (
	leader         = coalesce.Leader.String()
	localFollower  = coalesce.LocalFollower.String()
	remoteFollower = coalesce.RemoteFollower.String()
	fallback       = coalesce.Fallback.String()
	cached         = coalesce.Cached.String()
)

// collect turns the records into facts, and checks that the history is possible
// (promise "log"):
//
//   - A process begins once, with its settings, before it does anything else. It
//     exits cleanly unless a fault kills it.
//   - A call, an execution and a Forget begin once and end at most once, in the
//     same process and for the same key and flight.
//   - A call's result is that of the execution that it names (see matches).
//
// No fault excuses a violation, because a process writes each record before it goes on.
func (c *checker) collect(records []Record) {
	g := collector{
		checker: c, calls: map[[2]string]*call{}, batches: map[[2]string][]*call{}, executions: map[string]*execution{},
		leases: map[string]*lease{}, forgets: map[[2]string]*forget{}, faults: map[[3]string][]*fault{},
	}
	for i := range records {
		c.last = max(c.last, records[i].At)
		g.add(&records[i])
	}
	g.finish()
}

type collector struct {
	*checker
	calls      map[[2]string]*call // by process and name
	batches    map[[2]string][]*call
	executions map[string]*execution
	leases     map[string]*lease // by flight
	forgets    map[[2]string]*forget
	faults     map[[3]string][]*fault // faults that have not ended, by name, target and injection
}

func (g *collector) add(r *Record) {
	switch r.Kind {
	case FaultBegin:
		g.faultBegin(r)
		return
	case FaultEnd:
		g.faultEnd(r)
		return
	case Begin:
		g.begin(r)
		return
	}
	p := g.processOf(r.Process)
	if !p.known {
		if r.Kind == Exit || r.Kind == Closing {
			return // a record of the driver, which only injects faults
		}
		g.violation("log", []*Record{r}, "process %s did something before it began", r.Process)
		p.known = true // report this once for each process
	}
	switch r.Kind {
	case Closing:
		p.closing = min(p.closing, r.At)
	case Exit:
		p.exit = min(p.exit, r.At)
	case Called:
		g.called(r, p)
	case Returned:
		g.returned(r, p)
	case Started:
		g.started(r, p)
	case Ended:
		g.ended(r, p)
	case Over:
		g.over(r, p)
	case LeaseIs:
		g.leaseRecord(r, p)
	case Forget:
		g.forgetBegin(r, p)
	case Forgotten:
		g.forgetEnd(r)
	default:
		g.violation("log", []*Record{r}, "there is no kind of record %q", r.Kind)
	}
}

func (g *collector) processOf(name string) *process {
	p := g.process[name]
	if p == nil {
		p = &process{name: name, closing: never, exit: never, killed: never}
		g.process[name] = p
	}
	return p
}

func (g *collector) keyOf(name string) *key {
	k := g.keys[name]
	if k == nil {
		k = &key{local: map[string]*localKey{}}
		g.keys[name] = k
	}
	return k
}

func (k *key) in(process string) *localKey {
	l := k.local[process]
	if l == nil {
		l = &localKey{}
		k.local[process] = l
	}
	return l
}

func (g *collector) begin(r *Record) {
	p := g.processOf(r.Process)
	if p.known || r.Settings == nil {
		g.violation("log", []*Record{r}, "process %s begins twice, or without settings", r.Process)
		return
	}
	p.known, p.begin, p.settings = true, r.At, *r.Settings
}

func (g *collector) called(r *Record, p *process) {
	id := [2]string{r.Process, r.Call}
	if other := g.calls[id]; other != nil || r.At > p.exit {
		g.violation("log", []*Record{r}, "a call of %s has a name that was used, or came after its end", r.Process)
		return
	}
	k := g.keyOf(r.Key)
	c := &call{called: r, process: p, key: k}
	g.calls[id] = c
	k.calls = append(k.calls, c)
	g.facts.calls = append(g.facts.calls, c)
	if r.Batch != "" {
		of := [2]string{r.Process, r.Batch}
		g.batches[of] = append(g.batches[of], c)
	}
}

func (g *collector) returned(r *Record, p *process) {
	c := g.calls[[2]string{r.Process, r.Call}]
	if c == nil || c.returned != nil || c.called.Key != r.Key {
		g.violation("log", []*Record{r}, "a call returned that had not begun, or twice, or for another key")
		return
	}
	c.returned = r
	g.report.Outcomes[r.Outcome]++
	if r.Execution == "" && r.Outcome != NoResult {
		l := c.key.in(p.name)
		l.left = append(l.left, r.At)
	}
}

func (g *collector) started(r *Record, p *process) {
	if other := g.executions[r.Execution]; other != nil {
		g.violation("log", []*Record{other.start, r}, "two executions have the name %q", r.Execution)
		return
	}
	k := g.keyOf(r.Key)
	e := &execution{start: r, process: p, key: k, firstCall: never}
	g.executions[r.Execution] = e
	k.executions = append(k.executions, e)
	l := k.in(p.name)
	l.executions = append(l.executions, e)
	g.checkStart(e)
}

func (g *collector) ended(r *Record, p *process) {
	e := g.executions[r.Execution]
	if e == nil || e.end != nil || e.start.Key != r.Key || e.start.Flight != r.Flight || e.process != p {
		g.violation("log", []*Record{r}, "an execution ended that had not begun, or twice, or as another one")
		return
	}
	e.end = r
}

// over moves the end of an execution to when its function returned: the record of its end
// is made before that, and who comes meanwhile is served with good reason.
func (g *collector) over(r *Record, p *process) {
	e := g.executions[r.Execution]
	if e == nil || e.end == nil || e.start.Key != r.Key || e.process != p || r.Asked < e.end.At || r.Asked > r.At {
		g.violation("log", []*Record{r}, "an execution is over that had not ended, or ended later")
		return
	}
	end := *e.end
	end.At = r.Asked
	e.end = &end
}

func (g *collector) forgetBegin(r *Record, p *process) {
	id := [2]string{r.Process, r.Call}
	if g.forgets[id] != nil {
		g.violation("log", []*Record{r}, "two Forgets of %s have the name %q", r.Process, r.Call)
		return
	}
	x := &forget{begin: r, process: p}
	g.forgets[id] = x
	k := g.keyOf(r.Key)
	k.forgets = append(k.forgets, x)
}

func (g *collector) forgetEnd(r *Record) {
	x := g.forgets[[2]string{r.Process, r.Call}]
	if x == nil || x.end != nil || x.begin.Key != r.Key {
		g.violation("log", []*Record{r}, "a Forget ended that had not begun, or twice, or for another key")
		return
	}
	x.end = r
}

func (g *collector) faultBegin(r *Record) {
	x := &fault{name: r.Fault, target: r.Target, begin: r.At, end: never}
	if r.Effects != nil {
		x.effects = *r.Effects
	}
	if len(r.Keys) > 0 {
		x.keys = map[string]bool{}
		for _, key := range r.Keys {
			x.keys[key] = true
		}
	}
	id := [3]string{r.Fault, r.Target, r.Injection}
	g.faults[id] = append(g.faults[id], x)
	g.facts.faults = append(g.facts.faults, x)
	if x.effects.Kills && x.target != "" {
		p := g.processOf(x.target)
		p.killed = min(p.killed, r.At)
	}
}

func (g *collector) faultEnd(r *Record) {
	id := [3]string{r.Fault, r.Target, r.Injection}
	open := g.faults[id]
	if len(open) == 0 {
		g.violation("log", []*Record{r}, "the fault %q ended that had not begun", r.Fault)
		return
	}
	open[0].end, open[0].worst = r.At, r.Took
	g.faults[id] = open[1:]
}

// finish does what needs the whole history.
func (g *collector) finish() {
	for _, k := range g.keys {
		k.openUntil = latestOf(k.executions, func(e *execution) int64 { return e.openEnd(g.limits) })
		k.forgottenUntil = latestOf(k.forgets, g.facts.forgottenUntil)
		for _, l := range k.local {
			l.runsUntil = latestOf(l.executions, (*execution).endAt)
		}
	}
	for _, p := range g.process {
		if p.known && p.exit == never && p.killed == never {
			g.violation("log", nil, "process %s ended without a word, and no fault killed it", p.name)
		}
	}
	for _, c := range g.facts.calls {
		if c.returned != nil {
			g.result(c)
		}
	}
	for _, calls := range g.batches {
		g.batch(calls)
	}
}

// result connects a call to the execution whose result it got.
func (g *collector) result(c *call) {
	r := c.returned
	e := g.executions[r.Execution]
	if l := g.leases[r.Flight]; r.Outcome == NoResult && l != nil {
		e = l.execution
	}
	if e == nil {
		named := r.Execution != "" || r.Outcome == Value || r.Outcome == KnownError || r.Outcome == Panic
		if named {
			g.violation("log", []*Record{c.called, r}, "a call got the result of an execution %q that never started", r.Execution)
		}
		return
	}
	if !g.matches(c, e) {
		return
	}
	c.got = e
	e.firstCall = min(e.firstCall, c.called.At)
}

// matches checks that a call's result is that of the execution that it names:
//
//   - The execution is of the same key, and ended before the call returned. All
//     processes read one clock, and an end is recorded before the function returns.
//   - The outcomes are equal. A registered error is recognised (P7), and a panic is
//     reported as one (P6). A function that returned because its own context was
//     cancelled has no result for anybody (P7): no caller was waiting any more, or
//     its followers have elected another leader. A function that returned at its
//     context's deadline is a flight timeout for some callers, and for others it
//     is the error that it returned.
//   - A leader or a fallback got the result of its own process, run in that role.
//   - A remote follower got it from another process. It may be from its own if the
//     local tier may have had a second flight (mayHaveTwoFlights).
//   - A cached result is a value, in a process with a MaxAge (P3).
//   - The flight is that of the execution. A call that panicked does not know it.
//
// It returns whether the two can be used in further checks.
func (g *collector) matches(c *call, e *execution) bool {
	r := c.returned
	evidence := []*Record{c.called, r, e.start, e.end}
	switch {
	case e.key != c.key:
		g.violation("log", evidence, "a call for %q got the result of an execution for %q", r.Key, e.start.Key)
		return false
	case e.endAt() > r.At:
		g.violation("log", evidence, "a call got the result of an execution that had not ended")
		return false
	}
	if promise, ok := outcomesMatch(r.Outcome, e.end.Outcome); !ok {
		g.violation(promise, evidence, "a call got %q of an execution that ended in %q", r.Outcome, e.end.Outcome)
	}
	if r.Flight != "" && r.Flight != e.start.Flight {
		g.violation("log", evidence, "a call of flight %q got the result of flight %q", r.Flight, e.start.Flight)
	}
	here := e.process == c.process
	switch r.Role {
	case leader, fallback:
		if !here || e.start.Role != r.Role {
			g.violation("log", evidence, "a %s got the result of a %s of %s", r.Role, e.start.Role, e.process.name)
		}
	case remoteFollower:
		if here && !g.mayHaveTwoFlights(c.key, c.process.name, min(e.start.At, e.firstCall), r.At) {
			g.violation("log", evidence, "a remote follower got the result of its own process")
		}
	case cached:
		if c.process.settings.MaxAge == 0 || r.Outcome != Value {
			g.violation("P3", evidence, "a result was kept that is no value, or without a MaxAge")
		}
	case localFollower:
	default:
		if r.Outcome != Panic {
			g.violation("log", evidence, "a call with the role %q got a result", r.Role)
		}
	}
	return true
}

func outcomesMatch(call, execution Outcome) (promise string, ok bool) {
	switch {
	case execution == Cancelled:
		return "P7", false
	case call == execution:
		return "", true
	case execution == FlightTimeout && call == OtherError:
		return "", true
	case execution == Panic:
		return "P6", false
	case execution == KnownError && call == OtherError:
		return "P7", false
	}
	return "log", false
}
