package history

import (
	"fmt"
	"time"
)

// Report is what a history says.
type Report struct {
	Calls, Executions, Flights int
	Outcomes                   map[Outcome]int
	Violations                 []Violation // empty: every promise was kept
	// Faults is by name what was seen while a fault lasted and shortly after.
	Faults map[string]FaultReport
	// Forgets is what callers of other replicas got after a Forget.
	Forgets ForgetReport
	// Unexplained counts the fallbacks that no fault explains but a slow
	// machine does: Redis was waited for in vain.
	Unexplained int
}

// Violation is a promise that was not kept.
type Violation struct {
	Promise string // "P1" to "P7"; "hurt": by a fault; "log": no history at all
	Text    string
	Records []Record // the evidence
}

// FaultReport is what was seen of one kind of fault.
type FaultReport struct {
	Injected, Calls, Executions, Flights int
	// Hurt counts the calls that the fault must not have hurt.
	Hurt int
	// Executions that belong together, because they overlapped or one took
	// over from another: the most of one key, and the mean.
	ExecutionsPerFlightMax  int
	ExecutionsPerFlightMean float64
	// Recovery is from the begin of a fault to the start of each execution that
	// replaced one that it broke.
	Recovery []time.Duration
	// Worst is the greatest Took of the fault's ends.
	Worst time.Duration
}

// ForgetReport says how long a forgotten flight's result was still given to
// new callers on other replicas: until the notice arrived.
type ForgetReport struct {
	Forgets, StaleCalls int
	Longest             time.Duration // from the Forget's return to the call
}

// Limits are what the checker supposes about the machine. They are the only
// times it adds to the promises' own.
type Limits struct {
	// Slack is the longest that the machine may hold up anything that is due.
	Slack time.Duration
	// Held is how long after a call was written down it certainly waits in a
	// flight.
	Held time.Duration
	// Delivery is the longest that a message is under way, from the end of the
	// function to the end of the wait for it.
	Delivery time.Duration
}

// DefaultLimits are right for a machine of two cores under full load.
var DefaultLimits = Limits{Slack: 2 * time.Second, Held: 500 * time.Millisecond, Delivery: 500 * time.Millisecond}

// breakerWindow is how long the breaker keeps a replica from Redis.
const breakerWindow = time.Second

// aftermath is how long after a fault its effects may be seen: the last command
// that failed opens the breaker, which stays open for its window. A connection
// is tried again as often.
func (l Limits) aftermath(s Settings) time.Duration {
	return breakerWindow + s.RedisTimeout + l.Slack
}

// Check decides, by DefaultLimits, whether the promises were kept.
func Check(records []Record) Report { return DefaultLimits.Check(records) }

// Check decides whether the promises were kept. The records are by time, as
// Read returns them. It takes O(n log n).
func (l Limits) Check(records []Record) Report {
	c := &checker{facts: facts{limits: l, process: map[string]*process{}, keys: map[string]*key{}}}
	c.report.Outcomes = map[Outcome]int{}
	c.gather(records)
	for _, k := range c.keys {
		c.oneFlight(k)
		c.noPoison(k)
		c.forgotten(k)
		c.rerun(k)
	}
	for _, call := range c.calls {
		c.returns(call)
		c.failsOpen(call)
		c.fresh(call)
		c.unhurt(call)
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

// violation reports a promise that was not kept, with its evidence. Records
// may be nil.
func (c *checker) violation(promise string, evidence []*Record, format string, args ...any) {
	v := Violation{Promise: promise, Text: fmt.Sprintf(format, args...)}
	for _, r := range evidence {
		if r != nil {
			v.Records = append(v.Records, *r)
		}
	}
	c.report.Violations = append(c.report.Violations, v)
}

// String is the promise, the text and the evidence, a line each.
func (v Violation) String() string {
	s := v.Promise + ": " + v.Text
	for _, r := range v.Records {
		s += fmt.Sprintf("\n\t%.6f %s %s key=%s flight=%s call=%s execution=%s role=%s outcome=%s %s%s",
			float64(r.At)/1e9, r.Process, r.Kind, r.Key, r.Flight, r.Call, r.Execution, r.Role, r.Outcome, r.State, r.Error)
	}
	return s
}
