package history

import (
	"fmt"
	"time"
)

// Report is the result of checking a history.
type Report struct {
	Calls, Executions, Flights int
	Outcomes                   map[Outcome]int
	// Beyond names the executions beyond the one that their round of callers needed.
	Beyond     map[string]bool
	Violations []Violation // none if every promise was kept
	// Faults has, for each fault by name, what happened during the fault and its
	// aftermath.
	Faults map[string]FaultReport
	// Forgets has what callers on other replicas got after a Forget.
	Forgets ForgetReport
	// Unexplained counts fallbacks after a timeout of Redis that no fault explains. A
	// slow machine causes them.
	Unexplained int
}

// Violation is a broken promise.
type Violation struct {
	Promise string // "P1" to "P7"; "hurt": an outcome that nothing excuses; "log": the history is impossible
	Text    string
	Records []Record // the evidence
}

// FaultReport has what happened during one kind of fault.
type FaultReport struct {
	Injected, Calls, Executions, Flights int
	// Hurt counts the calls that the fault harmed, against a promise.
	Hurt int
	// Executions of one key count as one group if they overlap or one took over from
	// another. These are the largest group and the mean size.
	ExecutionsPerFlightMax  int
	ExecutionsPerFlightMean float64
	// Recovery has, for each execution that the fault broke, the time from the start of
	// the fault to the start of the execution that replaced it.
	Recovery []time.Duration
	// Worst is the largest Took of the fault's FaultEnd records.
	Worst time.Duration
}

// ForgetReport says for how long new callers on other replicas still got the result of
// a forgotten flight, because the notice had not arrived yet.
type ForgetReport struct {
	Forgets, StaleCalls int
	Longest             time.Duration // from the return of Forget to the call
}

// Limits are what the checker assumes about the machine. It adds no other times to
// those that the promises name.
type Limits struct {
	// Slack is the longest time for which the machine may delay anything that is due.
	Slack time.Duration
	// Held is a time after which a call that has been recorded certainly waits in a
	// flight.
	Held time.Duration
	// Join is the longest time from a call's record until Redis has its join.
	Join time.Duration
	// Delivery is the longest time that a message needs until it has been heard.
	Delivery time.Duration
}

// DefaultLimits suit a machine of two cores under full load.
var DefaultLimits = Limits{Slack: 2 * time.Second, Held: 500 * time.Millisecond, Join: 50 * time.Millisecond, Delivery: 500 * time.Millisecond}

// recovery is how long a replica may take to find that a server is up again, and that a
// subscription is not refused any more.
const recovery = time.Second

// aftermath returns how long effects of a fault may be seen after its end. The last
// command that fails may tell that the server is down, which is believed until it answers
// a probe.
func (l Limits) aftermath(s Settings) time.Duration {
	return recovery + s.RedisTimeout + l.Slack
}

// Check checks a history with DefaultLimits.
func Check(records []Record) Report { return DefaultLimits.Check(records) }

// Check checks whether the promises were kept. The records must be sorted by time, as
// Read returns them. It takes O(n log n) time.
func (l Limits) Check(records []Record) Report {
	c := &checker{facts: facts{limits: l, process: map[string]*process{}, keys: map[string]*key{}}}
	c.report.Outcomes, c.report.Beyond = map[Outcome]int{}, map[string]bool{}
	c.collect(records)
	for _, k := range c.keys {
		c.checkLeases(k)
		c.checkPoison(k)
		c.checkForgets(k)
		c.checkReruns(k)
		c.checkStarts(k)
		c.price(k)
	}
	for _, call := range c.calls {
		c.checkDeadline(call)
		c.checkFailOpen(call)
		c.checkFreshness(call)
		c.checkOutcome(call)
	}
	c.count()
	sortBy(c.report.Violations, func(v Violation) int64 {
		if len(v.Records) == 0 {
			return 0
		}
		return v.Records[0].At
	})
	return c.report
}

type checker struct {
	facts
	report Report
}

// violation reports a broken promise with its evidence. Elements of evidence may be
// nil.
func (c *checker) violation(promise string, evidence []*Record, format string, args ...any) {
	v := Violation{Promise: promise, Text: fmt.Sprintf(format, args...)}
	for _, r := range evidence {
		if r != nil {
			v.Records = append(v.Records, *r)
		}
	}
	c.report.Violations = append(c.report.Violations, v)
}

// String returns the promise, the text and the evidence on lines of their own.
func (v Violation) String() string {
	s := v.Promise + ": " + v.Text
	for _, r := range v.Records {
		s += fmt.Sprintf("\n\t%.6f %s %s key=%s flight=%s call=%s execution=%s role=%s outcome=%s %s%s",
			float64(r.At)/1e9, r.Process, r.Kind, r.Key, r.Flight, r.Call, r.Execution, r.Role, r.Outcome, r.State, r.Error)
	}
	return s
}
