package history_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// usualFlight is a flight without faults: r1 leads, and its second caller and r2
// follow.
const usualFlight = `
	100 r1 call a
	102 r1 taken x
	103 r1 start x leader
	110 r1 call b
	120 r2 call c
	900 r1 end x value
	901 r1 return a leader value x
	902 r1 return b local-follower value x
	905 r1 released x
	906 r2 return c remote-follower value x
`

// example is a history that keeps every promise, or breaks one.
type example struct {
	name    string
	breaks  string // the promise; empty: none
	history string
}

// logExamples are about whether a history is possible at all.
var logExamples = []example{
	{"a flight", "", usualFlight},
	{"a flight after another", "", usualFlight + `
		1000 r2 call d
		1002 r2 taken y
		1003 r2 start y leader
		1500 r2 end y error
		1501 r2 return d leader error y
		1502 r2 released y`},

	{"a return without a call", "log", usualFlight + `950 r1 return d leader value x`},
	{"a call that returns twice", "log", usualFlight + `950 r1 return a leader value x`},
	{"an execution that ends twice", "log", usualFlight + `950 r1 end x value`},
	{"two executions of one name", "log", usualFlight + `950 r2 start x fallback cause=too_large`},
	{"the result of another key", "log", usualFlight + `
		100 r1 call d key=l
		102 r1 taken y key=l
		103 r1 start y leader key=l
		904 r1 end y value key=l
		907 r1 return d leader value x key=l`},
	{"a result before its execution ended", "log", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		901 r1 return a leader value x
		905 r1 end x value`},
	{"a result that was made up", "log", usualFlight + `
		910 r2 call d
		911 r2 return d remote-follower value y`},
	{"a value out of an error", "log", strings.Replace(usualFlight, "end x value", "end x error", 1)},
	{"a leader that is another process", "log", strings.Replace(usualFlight, "c remote-follower", "c leader", 1)},
	{"a remote follower of its own process", "log", strings.Replace(usualFlight, "b local-follower", "b remote-follower", 1)},
	{"a remote follower of its own process, after a caller left", "", strings.Replace(usualFlight, "b local-follower", "b remote-follower", 1) + `
		105 r1 call d by=109
		109 r1 return d none cancelled`},
	{"a call after the end of its process", "log", usualFlight + `
		908 r1 closing
		909 r1 exit
		950 r1 call d`},
}

func TestCheckDecidesThePromises(t *testing.T) {
	for _, example := range slices.Concat(logExamples, leaseExamples, callerExamples, resultExamples, batchExamples) {
		t.Run(strings.ReplaceAll(example.name, " ", "_"), func(t *testing.T) {
			report := history.Check(parse(example.history, settings))
			expect(t, report, example.breaks)
		})
	}
}

// expect fails the test unless this promise was broken and no other.
func expect(t *testing.T, report history.Report, promise string) {
	t.Helper()
	found := false
	for _, v := range report.Violations {
		if v.Promise == promise {
			found = true
		} else {
			t.Errorf("want %q broken, got %v", promise, v)
		}
	}
	if promise != "" && !found {
		t.Errorf("%s is broken, and was not found to be", promise)
	}
}
