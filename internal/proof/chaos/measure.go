package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
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
	// Aimless are the injections that were to hit the leader of a flight with followers,
	// and found none.
	Aimless int
	Calls   int // that waited while it lasted, or shortly after
	// Executions are those begun in that time; per call: those begun for its
	// key, on any replica, while it waited.
	Executions                int
	PerCallMedian, PerCallMax int
	Hurt                      int
	// Rounds are those of the callers: the executions but for Beyond, those beyond one for
	// each. Most is how many there may be a round; 0: as many as there are.
	Rounds, Beyond int
	Most           float64

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
	keys  map[string]bool // that it hits; nil: all
	ended int64
	until int64 // when the next one begins, or what it did is felt no more
}

func (p *past) incidents() []incident {
	var found []incident
	for i := range p.records {
		r := &p.records[i]
		switch r.Kind {
		case history.FaultBegin:
			i := incident{began: r, ended: r.At}
			if r.Keys != nil {
				i.keys = map[string]bool{}
				for _, key := range r.Keys {
					i.keys[key] = true
				}
			}
			found = append(found, i)
		case history.FaultEnd:
			for j := range slices.Backward(found) {
				if b := found[j].began; b.Fault == r.Fault && b.Target == r.Target && b.Injection == r.Injection {
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
	for _, f := range append(allFaults(), fault{name: several}, fault{name: heldUp}) {
		row := Row{Fault: f.name, Bound: f.bound.text, Limit: f.bound.limit, ArrivingBound: "Redis timeout", ArrivingLimit: f.bound.arriving, Hurt: report.Faults[f.name].Hurt, Most: f.most}
		var of []incident
		for _, i := range incidents {
			if i.began.Fault == f.name {
				of = append(of, i)
			}
		}
		if row.Injected = len(of); row.Injected == 0 {
			continue
		}
		for _, i := range of {
			if f.bound.measure == takeover && i.began.Flight == "" {
				row.Aimless++
			}
		}
		p.count(&row, of, report.Beyond, incident.hits)
		if f.bound.text != "" {
			p.time(&row, f.bound, of)
		}
		row.sum()
		rows = append(rows, row)
		if f.living != "" {
			rows = append(rows, p.living(f.living, of, report.Beyond))
		}
	}
	return rows
}

// living is the row of the keys that a fault did not hit.
func (p *past) living(name string, incidents []incident, beyond map[string]bool) Row {
	row := Row{Fault: name, Injected: len(incidents), Most: mostLiving}
	p.count(&row, incidents, beyond, func(i incident, key string) bool { return !i.hits(key) })
	row.sum()
	return row
}

func (i incident) hits(key string) bool { return i.keys == nil || i.keys[key] }

func (p *past) count(row *Row, incidents []incident, beyond map[string]bool, of func(incident, string) bool) {
	within := func(key string, from, to int64) bool {
		return slices.ContainsFunc(incidents, func(i incident) bool { return from <= i.until && to >= i.began.At && of(i, key) })
	}
	for _, c := range p.calls {
		if !within(c.began.Key, c.began.At, c.ended.At) {
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
		// What hits one command of a call for very many keys hits a hundred keys: such a
		// blow would be the whole price of a short campaign.
		if !strings.Contains(e.began.Key, crowdKey) && within(e.began.Key, e.began.At, e.began.At) {
			row.Executions++
			if beyond[e.began.Execution] {
				row.Beyond++
			} else {
				row.Rounds++
			}
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

// spare is how many executions beyond its bound a fault may have before the campaign
// fails: what a short one has of each is chance.
const spare = 10

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
		if row.Aimless > 0 && row.Aimless == row.Injected {
			found = append(found, row.Fault+": no flight with followers was found to inject it into")
		}
		if row.tooDear(spare) {
			found = append(found, fmt.Sprintf("%s: %d executions for %d rounds of callers; the bound is %g a round",
				row.Fault, row.Executions, row.Rounds, row.Most))
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
