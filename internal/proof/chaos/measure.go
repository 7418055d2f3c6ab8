package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// measurement says what a fault's waits are.
type measurement int

const (
	// waiters: callers that waited for another replica when the fault began.
	// What counts is how long each waited on for nothing: until its replica
	// ran its function, from the fault's begin or the other's end; or until
	// its answer, from when the execution that it came from had ended.
	waiters measurement = iota
	// takeover: from the fault's begin until another replica ran a function
	// for the key of the flight that was hit.
	takeover
)

// afterwards is how long what a fault did may still be felt.
const afterwards = recovering + redisTimeout

// Row is what was seen of one fault.
type Row struct {
	Fault    string
	Injected int
	Calls    int // that waited while it lasted, or shortly after
	// Executions are those begun in that time; per call: those begun for its
	// key, on any replica, while it waited.
	Executions                int
	PerCallMedian, PerCallMax int
	Hurt                      int

	Bound string
	Limit time.Duration
	Waits []time.Duration // sorted
	// ArrivingLimit and Arriving are of callers that came while Redis could
	// not be used: how long until their function ran.
	ArrivingBound string
	ArrivingLimit time.Duration
	Arriving      []time.Duration // sorted

	perCall []int
}

// call is a Called and its Returned record.
type call struct{ began, ended *history.Record }

// execution is a Started record, and when the function ended: with its process
// if that was killed, or never.
type execution struct {
	began *history.Record
	ended int64
}

func (e execution) runsAt(t int64) bool { return e.began.At <= t && t < e.ended }

// past is a history that can be asked for keys and names.
type past struct {
	records    []history.Record
	calls      []call
	callsOf    map[string][]call      // by key
	runsOf     map[string][]execution // by key, in order of their begin
	executions map[string]execution   // by name
}

func readPast(records []history.Record) *past {
	p := &past{records: records, callsOf: map[string][]call{}, runsOf: map[string][]execution{}, executions: map[string]execution{}}
	returns := map[string]*history.Record{}
	ends := map[string]int64{} // by execution or process
	for i := range records {
		switch r := &records[i]; r.Kind {
		case history.Returned:
			returns[r.Call] = r
		case history.Ended:
			ends[r.Execution] = r.At
		case history.Exit:
			ends[r.Process] = r.At
		case history.FaultBegin:
			if r.Effects.Kills && ends[r.Target] == 0 {
				ends[r.Target] = r.At
			}
		}
	}
	for i := range records {
		switch r := &records[i]; r.Kind {
		case history.Called:
			if ended := returns[r.Call]; ended != nil {
				p.calls = append(p.calls, call{r, ended})
				p.callsOf[r.Key] = append(p.callsOf[r.Key], call{r, ended})
			}
		case history.Started:
			e := execution{r, cmp.Or(ends[r.Execution], ends[r.Process], math.MaxInt64)}
			p.runsOf[r.Key] = append(p.runsOf[r.Key], e)
			p.executions[r.Execution] = e
		}
	}
	return p
}

// incident is one injection: its FaultBegin and FaultEnd records.
type incident struct {
	began *history.Record
	ended int64
	until int64 // when the next one begins, or what it did is felt no more
}

func (p *past) incidents() []incident {
	var found []incident
	for i := range p.records {
		r := &p.records[i]
		switch r.Kind {
		case history.FaultBegin:
			found = append(found, incident{began: r, ended: r.At})
		case history.FaultEnd:
			for j := range slices.Backward(found) {
				if b := found[j].began; b.Fault == r.Fault && b.Target == r.Target && b.Flight == r.Flight {
					found[j].ended = r.At
					break
				}
			}
		}
	}
	for i := range found {
		found[i].until = found[i].ended + int64(afterwards)
		if i+1 < len(found) {
			found[i].until = max(found[i].ended, min(found[i].until, found[i+1].began.At))
		}
	}
	return found
}

// measure makes the table.
func measure(records []history.Record, report history.Report) []Row {
	p := readPast(records)
	incidents := p.incidents()
	var rows []Row
	for _, f := range append(slices.Clone(faults), fault{name: several}, fault{name: heldUp}) {
		row := Row{Fault: f.name, Bound: f.bound.text, Limit: f.bound.limit, ArrivingBound: "Redis timeout", ArrivingLimit: f.bound.arriving, Hurt: report.Faults[f.name].Hurt}
		var of []incident
		for _, i := range incidents {
			if i.began.Fault == f.name {
				of = append(of, i)
			}
		}
		if row.Injected = len(of); row.Injected == 0 {
			continue
		}
		p.count(&row, of)
		if f.bound.text != "" {
			p.time(&row, f.bound, of)
		}
		row.sum()
		rows = append(rows, row)
	}
	return rows
}

func (p *past) count(row *Row, incidents []incident) {
	within := func(from, to int64) bool {
		return slices.ContainsFunc(incidents, func(i incident) bool { return from <= i.until && to >= i.began.At })
	}
	for _, c := range p.calls {
		if !within(c.began.At, c.ended.At) {
			continue
		}
		row.Calls++
		begun := 0
		for _, e := range p.runsOf[c.began.Key] {
			if e.began.At >= c.began.At && e.began.At <= c.ended.At {
				begun++
			}
		}
		row.perCall = append(row.perCall, begun)
	}
	for _, e := range p.executions {
		if within(e.began.At, e.began.At) {
			row.Executions++
		}
	}
}

// sum sorts what was measured.
func (r *Row) sum() {
	slices.Sort(r.Waits)
	slices.Sort(r.Arriving)
	slices.Sort(r.perCall)
	r.PerCallMedian, r.PerCallMax = median(r.perCall), worst(r.perCall)
}

func (p *past) time(row *Row, b bound, incidents []incident) {
	for _, i := range incidents {
		if p.stoodStill(i) {
			continue
		}
		switch b.measure {
		case takeover:
			row.Waits = append(row.Waits, p.takeover(i)...)
		case waiters:
			row.Waits = append(row.Waits, p.waits(i)...)
		}
		if b.arriving > 0 {
			row.Arriving = append(row.Arriving, p.arriving(i)...)
		}
	}
}

// stoodStill tells whether the machine did, when waits would have been
// measured: they say nothing then.
func (p *past) stoodStill(i incident) bool {
	return slices.ContainsFunc(p.records, func(r history.Record) bool {
		return r.Kind == history.FaultEnd && r.Fault == heldUp && r.At > i.began.At && r.At-int64(r.Took) < i.until+int64(leaseTTL)
	})
}

// takeover returns how long it took until the key of the flight that was hit
// was led by another replica, if somebody still wanted it.
func (p *past) takeover(i incident) []time.Duration {
	for _, e := range p.runsOf[i.began.Key] {
		if e.began.At > i.began.At && e.began.Process != i.began.Target {
			if !p.wanted(i, e) {
				return nil
			}
			return []time.Duration{time.Duration(e.began.At - i.began.At)}
		}
	}
	return nil
}

// wanted tells whether a caller of the execution's replica had waited for it
// since the fault began.
func (p *past) wanted(i incident, e execution) bool {
	return slices.ContainsFunc(p.callsOf[e.began.Key], func(c call) bool {
		return c.began.Process == e.began.Process && c.began.At < i.began.At && c.ended.At > e.began.At
	})
}

// waits returns how long those who waited for another replica waited on for
// nothing.
func (p *past) waits(i incident) []time.Duration {
	var waits []time.Duration
	for _, c := range p.calls {
		if c.began.At > i.began.At || c.ended.At < i.began.At || c.began.Process == i.began.Target && stops(i) {
			continue
		}
		if wait, ok := p.wait(i, c); ok {
			waits = append(waits, wait)
		}
	}
	return waits
}

func stops(i incident) bool { return i.began.Effects.Stops || i.began.Effects.Kills }

// wait returns how long a caller that waited for another replica when the
// fault began waited on for nothing, if the fault can have had to do with it.
func (p *past) wait(i incident, c call) (time.Duration, bool) {
	elsewhere := false
	for _, e := range p.runsOf[c.began.Key] {
		if e.runsAt(i.began.At) {
			if e.began.Process == c.began.Process {
				return 0, false // it waits for its own replica
			}
			elsewhere = true
		}
	}
	if !elsewhere {
		return 0, false
	}
	from, to := i.began.At, c.ended.At
	result, known := p.executions[c.ended.Execution]
	switch {
	case !known:
		return 0, false // it left
	case result.began.Process == c.began.Process && result.began.At > from:
		to = result.began.At
		running, ended := p.elsewhere(c, to)
		if running && !failed(result.began.Cause) {
			return 0, false // what runs there is not what it waited for: its caller left, or it was forgotten
		}
		if !running {
			from = max(from, ended)
		}
	case result.ended < to:
		from = max(from, result.ended)
	default:
		return 0, false
	}
	if running, _ := p.elsewhere(c, i.until-1); to > i.until && (running || from > i.until) {
		return 0, false // what it waited for then, this fault had nothing to do with
	}
	return time.Duration(max(0, to-from)), true
}

// elsewhere tells whether another replica runs a function for the call's key
// at t, and when the last one before has ended.
func (p *past) elsewhere(c call, t int64) (running bool, ended int64) {
	for _, e := range p.runsOf[c.began.Key] {
		switch {
		case e.began.Process == c.began.Process || e.began.At > t:
		case e.runsAt(t):
			running = true
		default:
			ended = max(ended, e.ended)
		}
	}
	return running, ended
}

// failed tells whether a function ran without the lease because Redis failed.
func failed(cause string) bool { return cause != "" && cause != "too large" }

// arriving returns how long callers that came while Redis could not be used,
// and whose key no other replica ran, waited until their function ran.
func (p *past) arriving(i incident) []time.Duration {
	var waits []time.Duration
	for _, c := range p.calls {
		if c.began.At < i.began.At || c.began.At > i.ended || c.ended.Role != "fallback" {
			continue
		}
		e, known := p.executions[c.ended.Execution]
		if !known || !failed(e.began.Cause) || e.began.At < c.began.At {
			continue
		}
		if running, _ := p.elsewhere(c, c.began.At); !running {
			waits = append(waits, time.Duration(e.began.At-c.began.At))
		}
	}
	return waits
}

func median[T any](sorted []T) (middle T) {
	if len(sorted) > 0 {
		middle = sorted[len(sorted)/2]
	}
	return middle
}

func worst[T cmp.Ordered](sorted []T) (last T) {
	if len(sorted) > 0 {
		last = sorted[len(sorted)-1]
	}
	return last
}

// slack is by how much a bound may be exceeded before the campaign fails: a
// machine with other work lets processes wait.
const slack = 3 * time.Second

// failures returns why the campaign has failed.
func failures(r Result) []string {
	var found []string
	for _, v := range r.History.Violations {
		found = append(found, v.String())
	}
	for _, row := range r.Rows {
		if row.Hurt > 0 {
			found = append(found, fmt.Sprintf("%s: %d callers hurt", row.Fault, row.Hurt))
		}
		if w := worst(row.Waits); row.Limit > 0 && w > row.Limit+slack {
			found = append(found, fmt.Sprintf("%s: a caller waited %v; the bound is %v", row.Fault, w, row.Limit))
		}
		if w := worst(row.Arriving); row.ArrivingLimit > 0 && w > row.ArrivingLimit+slack {
			found = append(found, fmt.Sprintf("%s: a caller that came waited %v; the bound is %v", row.Fault, w, row.ArrivingLimit))
		}
	}
	return found
}
