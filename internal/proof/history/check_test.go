package history_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// herd is the usual flight: r1 leads, its second caller and r2 follow.
const herd = `
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

// examples are histories that keep every promise, and ones that break one.
var examples = []struct {
	name    string
	breaks  string // the promise; empty: none
	history string
}{
	{"a flight", "", herd},
	{"a flight after another", "", herd + `
		1000 r2 call d
		1002 r2 taken y
		1003 r2 start y leader
		1500 r2 end y error
		1501 r2 return d leader error y
		1502 r2 released y`},

	{"a return without a call", "log", herd + `950 r1 return d leader value x`},
	{"a call that returns twice", "log", herd + `950 r1 return a leader value x`},
	{"an execution that ends twice", "log", herd + `950 r1 end x value`},
	{"two executions of one name", "log", herd + `950 r2 start x fallback cause=too_large`},
	{"the result of another key", "log", herd + `
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
	{"a result that was made up", "log", herd + `
		910 r2 call d
		911 r2 return d remote-follower value y`},
	{"a value out of an error", "log", strings.Replace(herd, "end x value", "end x error", 1)},
	{"a leader that is another process", "log", strings.Replace(herd, "c remote-follower", "c leader", 1)},
	{"a remote follower of its own process", "log", strings.Replace(herd, "b local-follower", "b remote-follower", 1)},
	{"a remote follower of its own process, after a caller left", "", strings.Replace(herd, "b local-follower", "b remote-follower", 1) + `
		105 r1 call d by=109
		109 r1 return d none cancelled`},
	{"a call after the end of its process", "log", herd + `
		908 r1 closing
		909 r1 exit
		950 r1 call d`},

	{"two leases at once", "P1", herd + `
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"two leases at once, the first renewed", "P1", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		1102 r1 renewed x
		2102 r1 renewed x
		4000 r2 call b
		4002 r2 taken y
		4003 r2 start y leader
		4500 r2 end y value
		4501 r2 return b leader value y
		5000 r1 end x value
		5001 r1 return a leader value x`},
	{"two leases at once, the first said to be lost later", "P1", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		600 r2 call b
		602 r2 taken y
		603 r2 start y leader
		900 r2 end y value
		901 r2 return b leader value y
		1102 r1 lost x
		5000 r1 end x value
		5001 r1 return a leader value x`},
	{"a lease that ran out", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		110 driver fault stop r1 stops
		3102 r2 call b
		3104 r2 taken y
		3105 r2 start y leader
		3500 r2 end y value
		3501 r2 return b leader value y
		4900 driver faultend stop r1
		5000 r1 end x value
		5001 r1 return a leader value x`},
	{"a dead leader's lease, taken too soon", "P1", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		500 driver fault kill r1 kills
		501 driver faultend kill r1
		600 r2 call b
		1500 r2 taken y
		1501 r2 start y leader takeover=yes
		1800 r2 end y value
		1801 r2 return b leader value y`},
	{"a dead leader's lease, taken when it ran out", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		500 driver fault kill r1 kills
		501 driver faultend kill r1
		600 r2 call b
		3103 r2 taken y
		3104 r2 start y leader takeover=yes
		3800 r2 end y value
		3801 r2 return b leader value y`},
	{"two leases while Redis loses its keys", "", herd + `
		400 driver fault failover * keys
		500 r2 taken y
		501 r2 start y leader
		600 driver faultend failover *
		800 r2 end y value`},
	{"two leases after Redis had lost its keys", "P1", herd + `
		20 driver fault failover * keys
		50 driver faultend failover *
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"two leases after a Forget", "", herd + `
		400 r3 forget g
		401 r3 forgotten g
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"two leases after a Forget of before", "P1", herd + `
		80 r3 forget g
		81 r3 forgotten g
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"a lease that was given up", "", `
		100 r1 call a by=300
		102 r1 taken x
		103 r1 start x leader
		300 r1 return a none cancelled
		302 r1 released x
		400 r2 call b
		402 r2 taken y
		403 r2 start y leader
		700 r2 end y value
		701 r2 return b leader value y
		800 r1 end x cancelled`},
	{"a lease that was given up, by a process that was stopped before it could say so", "", `
		100 r1 call a by=300
		102 r1 taken x
		103 r1 start x leader
		302 r1 released x
		310 driver fault stop r1 stops
		400 r2 call b
		402 r2 taken y
		403 r2 start y leader
		700 r2 end y value
		701 r2 return b leader value y
		5000 driver faultend stop r1
		5001 r1 return a none cancelled
		5002 r1 end x cancelled`},
	{"a lease that was given up, as Redis said only when it was asked again", "", `
		100 r1 call a by=300
		102 r1 taken x
		103 r1 start x leader
		300 r1 return a none cancelled
		400 r2 call b
		402 r2 taken y
		403 r2 start y leader
		700 r2 end y value
		701 r2 return b leader value y
		2000 r1 released x
		2100 r1 end x cancelled`},
	{"a leader without lease", "P1", herd + `
		5000 r2 start y leader
		5001 r2 end y value`},
	{"one flight that runs twice", "P1", strings.Replace(herd, "906", "300 r1 start y leader\n400 r1 end y value\n906", 1)},
	{"a fallback without reason", "P1", herd + `
		5000 r2 start y fallback cause=connection
		5001 r2 end y value`},
	{"a fallback long after the fault", "P1", herd + `
		1000 driver fault pause * unusable
		2000 driver faultend pause *
		6000 r2 start y fallback cause=connection
		6001 r2 end y value`},
	{"a fallback for a fault of another process", "P1", herd + `
		1000 driver fault cut r1 unreliable
		2000 r2 start y fallback cause=connection
		2001 r2 end y value
		2002 driver faultend cut r1`},
	{"a fallback just after the fault", "", herd + `
		1000 driver fault pause * unusable
		2000 driver faultend pause *
		3000 r2 start y fallback cause=breaker
		3001 r2 end y value`},
	{"a fallback for a result that is too large", "", herd + `
		907 r2 start y fallback cause=too_large
		950 r2 end y value`},

	{"a call that never returns", "P2", herd + `400 r1 call d`},
	{"a call that never returns from a killed process", "", herd + `
		400 r3 call d
		600 driver fault kill r3 kills
		601 driver faultend kill r3`},
	{"a call that was due before its process was killed", "P2", herd + `
		400 r3 call d by=1000
		5000 driver fault kill r3 kills
		5001 driver faultend kill r3`},
	{"a call after its deadline", "P2", herd + `
		400 r1 call d by=1000
		4000 r1 return d none cancelled`},
	{"a call after its deadline, by a Redis timeout on a slow machine", "", herd + `
		400 r1 call d by=1000
		3200 r1 return d none cancelled`},
	{"a call that came after its deadline", "", herd + `
		9000 r1 call d by=1000
		9001 r1 return d none cancelled`},
	{"a call after the flight timeout", "P2", herd + `
		400 r1 call d by=100000
		33000 r1 return d none cancelled`},
	{"a call after its deadline, in a process that was stopped", "", herd + `
		400 r1 call d by=1000
		800 driver fault stop r1 stops
		8000 driver faultend stop r1
		8500 r1 return d none cancelled`},
	{"a call after its deadline, in a process that was stopped before", "P2", herd + `
		400 r1 call d by=9000
		800 driver fault stop r1 stops
		5000 driver faultend stop r1
		12500 r1 return d none cancelled`},
	{"a call after its deadline, while another process was stopped", "P2", herd + `
		400 r1 call d by=1000
		800 driver fault stop r2 stops
		8000 driver faultend stop r2
		8500 r1 return d none cancelled`},

	{"a stale result on the leader's replica", "P3", herd + `
		902.5 r1 call d
		906 r1 return d local-follower value x`},
	{"a stale result, just before the leader's callers had it", "", herd + `
		900.5 r1 call d
		906 r1 return d local-follower value x`},
	{"a stale result of a flight that was released", "P3", herd + `
		905.5 r3 call d
		910 r3 return d remote-follower value x`},
	{"a result whose message was under way", "", herd + `
		906 r2 call d
		906.5 r2 return d local-follower value x
		904 r3 call e
		912 r3 return e remote-follower value x`},
	{"an old result", "P3", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x value
		901 r1 return a leader value x
		1000 driver fault cut r2 messages
		1000 r2 call b
		1100 driver faultend cut r2
		1600 r2 call c
		3103 r2 return b remote-follower value x
		3104 r2 return c local-follower value x
		3110 r1 released x`},
	{"an old result, which Redis held up", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x value
		900 driver fault pause * unreliable
		901 r1 return a leader value x
		1600 r2 call c
		3000 driver faultend pause *
		3104 r2 return c remote-follower value x
		3110 r1 released x`},
	{"an old result, whose message was delayed", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		850 driver fault slow * 1s
		900 r1 end x value
		901 r1 return a leader value x
		950 driver faultend slow *
		1800 r2 call c
		1810 r2 return c remote-follower value x
		1900 r1 released x`},
	{"an old result of a process that was stopped", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x value
		900 driver fault stop r1 stops
		1600 r2 call c
		2000 driver faultend stop r1
		2001 r1 return a leader value x
		2003 r2 return c remote-follower value x
		2004 r1 released x`},
	{"a kept value without MaxAge", "P3", herd + `
		906 r3 call d
		910 r3 return d cached value x`},

	{"a forgotten flight's result", "P4", herd + `
		400 r2 forget g
		401 r2 forgotten g
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a forgotten flight's result, of before", "", herd + `
		400 r2 forget g
		400.5 r2 call d
		401 r2 forgotten g
		907 r2 return d remote-follower value x`},
	{"a result of after a Forget that failed", "", herd + `
		400 r2 forget g
		401 r2 forgotten g error=timeout
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a result begun after the Forget", "", herd + `
		90 r2 forget g
		91 r2 forgotten g
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a forgotten flight's result elsewhere, before the notice", "", herd + `
		400 r2 forget g
		401 r2 forgotten g
		402 r1 call d
		904 r1 return d local-follower value x`},
	{"a forgotten flight's result elsewhere, long after", "P4", `
		3000 r1 call a
		3002 r1 taken x
		3003 r1 start x leader
		3100 r2 forget g
		3101 r2 forgotten g
		4200 r1 call b
		4900 r1 end x value
		4901 r1 return a leader value x
		4902 r1 return b local-follower value x
		4905 r1 released x`},

	{"a call that Redis failed", "P5", herd + `
		950 driver fault pause * unusable
		1000 r1 call d
		1250 r1 return d none unavailable
		1300 driver faultend pause *`},
	{"a call that waits for Redis", "P5", herd + `
		1000 driver fault pause * unusable
		3500 r1 call d by=9000
		9000 r1 return d none cancelled
		12000 driver faultend pause *`},
	{"a call that leaves before Redis has been waited for", "", herd + `
		1000 driver fault pause * unusable
		3500 r1 call d by=3600
		3600 r1 return d none cancelled
		12000 driver faultend pause *`},
	{"a call that waits for Redis until it is back", "", herd + `
		1000 driver fault pause * unusable
		3500 r1 call d by=9000
		7000 driver faultend pause *
		9000 r1 return d none cancelled`},
	{"a call that waits for Redis in a process that is stopped", "", herd + `
		1000 driver fault pause * unusable
		3500 r1 call d by=9000
		3600 driver fault stop r1 stops
		8000 driver faultend stop r1
		9000 r1 return d none cancelled
		12000 driver faultend pause *`},
	{"a call that waits for a leader it cannot hear", "P5", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call c by=9000
		1000 driver fault pause * unusable
		8900 r1 end x value
		8901 r1 return a leader value x
		9000 r2 return c none cancelled
		12000 driver faultend pause *`},
	{"a call that runs its own without Redis", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call c by=9000
		1000 driver fault pause * unusable
		3200 r2 start y fallback cause=timeout
		8800 r2 end y value
		8801 r2 return c fallback value y
		8900 r1 end x value
		8901 r1 return a leader value x
		12000 driver faultend pause *`},

	{"four leaders that die", "P6", dying(4)},
	{"three leaders that die", "", dying(3) + `
		9500 r9 call z
		9501 r9 return z none poisoned`},
	{"a key that is poisoned too early", "hurt", dying(2) + `
		9500 r9 call z
		9501 r9 return z none poisoned`},
	{"a panic", "", failing("panic", "") + `
		2003 r2 return b remote-follower panic x`},
	{"a panic that is an error elsewhere", "P6", failing("panic", "") + `
		2003 r2 return b remote-follower error x`},
	{"a panic that is tried again", "P6", failing("panic", "") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},

	{"an error", "", failing("error", "") + `
		2003 r2 return b remote-follower error x`},
	{"an error that is not recognised", "P7", failing("error", "") + `
		2003 r2 return b remote-follower other_error x`},
	{"an error that is tried again", "P7", failing("error", "") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},
	{"an error that is tried again by one who came too late for it", "", failing("error", "") + `
		1999 r2 return b remote-follower cancelled
		1999.5 r2 call c
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return c leader value y
		2502 r2 released y`},
	{"an error that is tried again after a fault", "", failing("error", "1500 driver fault cut r2 messages\n1600 driver faultend cut r2") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},
	{"a cancelled function's result", "P7", strings.Replace(strings.Replace(herd, "end x value", "end x cancelled", 1),
		"remote-follower value x", "remote-follower other_error x", 1)},

	{"a strange return", "hurt", herd + `
		400 r1 call d
		500 r1 return d none strange`},
	{"an error of nobody", "hurt", herd + `
		400 r1 call d
		500 r1 return d none other_error`},
	{"a call that is refused", "hurt", herd + `
		400 r1 call d
		500 r1 return d none closed`},
	{"a call that is refused by a process that closes", "", herd + `
		950 r1 closing
		960 r1 call d
		961 r1 return d none closed`},
	{"a timeout of a function that runs too long", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		200 r2 call b
		30102 r1 return a leader flight_timeout
		30104 r2 return b remote-follower flight_timeout
		31000 r1 end x value`},
	{"a timeout whose function's end was lost", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		400 r3 call d
		26900 driver fault cut r3 messages
		27000 r1 end x value
		27001 r1 return a leader value x
		27002 r1 released x
		27100 driver faultend cut r3
		30402 r3 return d none flight_timeout`},
	{"a timeout whose function's end was lost long ago", "hurt", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		400 r3 call d
		24000 r1 end x value
		24001 r1 return a leader value x
		24002 r1 released x
		26900 driver fault cut r3 messages
		27100 driver faultend cut r3
		30402 r3 return d none flight_timeout`},
	{"a timeout in a process that was stopped", "", herd + `
		400 r3 call d
		25000 driver fault stop r3 stops
		30300 driver faultend stop r3
		30402 r3 return d none flight_timeout`},
	{"a timeout while nothing runs", "hurt", herd + `
		400 r3 call d
		30402 r3 return d none flight_timeout`},
}

// dying is n leaders that are killed one after another.
func dying(n int) string {
	text := ""
	for i := range n {
		at := 100 + 3100*i
		text += strings.NewReplacer("N", string(rune('1'+i)), "A", strconv.Itoa(at), "B", strconv.Itoa(at+2), "C", strconv.Itoa(at+3), "D", strconv.Itoa(at+50), "E", strconv.Itoa(at+51)).Replace(`
			A rN call a
			B rN taken xN
			C rN start xN leader
			D driver fault kill rN kills
			E driver faultend kill rN`)
	}
	return text
}

// failing is a function that fails after two callers have waited a second.
func failing(outcome, fault string) string {
	return `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call b
		` + fault + `
		2000 r1 end x ` + outcome + `
		2001 r1 return a leader ` + outcome + ` x
		2002 r1 released x
	`
}

func TestCheckDecidesThePromises(t *testing.T) {
	for _, example := range examples {
		t.Run(strings.ReplaceAll(example.name, " ", "_"), func(t *testing.T) {
			report := history.Check(parse(example.history, settings))
			expect(t, report, example.breaks)
		})
	}
}

// expect wants the promise broken, and no other one.
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
