package history_test

import (
	"strconv"
	"strings"
)

// resultExamples are about the result that a caller gets: P3, P4, P6 and P7.
var resultExamples = []example{
	{"a stale result on the leader's replica", "P3", usualFlight + `
		900.5 r1 call d
		906 r1 return d local-follower value x`},
	{"a result of a function that ran when the caller came", "", usualFlight + `
		899.5 r1 call d
		906 r1 return d local-follower value x
		899.5 r3 call e
		910 r3 return e remote-follower value x`},
	{"a stale result whose message was under way", "P3", usualFlight + `
		900.5 r3 call d
		910 r3 return d remote-follower value x`},
	{"a stale result of a flight that a caller of before followed", "P3", usualFlight + `
		905 r2 call d
		906.5 r2 return d local-follower value x`},
	{"a stale result, which Redis held up", "P3", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		890 driver fault pause * unreliable,keys
		900 r1 end x value
		901 r1 return a leader value x
		950 r2 call c
		3000 driver faultend pause *
		3104 r2 return c remote-follower value x
		3110 r1 released x`},
	{"a stale result when Redis' clock was set", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		500 driver fault step * clock
		501 driver faultend step *
		900 r1 end x value
		901 r1 return a leader value x
		950 r2 call c
		955 r2 return c remote-follower value x
		960 r1 released x`},
	{"an old result when Redis' clock was set", "P3", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		500 driver fault step * clock
		501 driver faultend step *
		900 r1 end x value
		901 r1 return a leader value x
		1450 r2 call c
		1455 r2 return c remote-follower value x
		1460 r1 released x`},
	{"a kept value without MaxAge", "P3", usualFlight + `
		906 r3 call d
		910 r3 return d cached value x`},

	{"a forgotten flight's result", "P4", usualFlight + `
		400 r2 forget g
		401 r2 forgotten g
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a forgotten flight's result, of before", "", usualFlight + `
		400 r2 forget g
		400.5 r2 call d
		401 r2 forgotten g
		907 r2 return d remote-follower value x`},
	{"a result of after a Forget that failed", "", usualFlight + `
		400 r2 forget g
		401 r2 forgotten g error=timeout
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a result begun after the Forget", "", usualFlight + `
		90 r2 forget g
		91 r2 forgotten g
		402 r2 call d
		907 r2 return d remote-follower value x`},
	{"a forgotten flight's result elsewhere, before the notice", "", usualFlight + `
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

	{"four leaders that die", "P6", dyingLeaders(4)},
	{"three leaders that die", "", dyingLeaders(3) + `
		9500 r9 call z
		9501 r9 return z none poisoned`},
	{"a key that is poisoned too early", "hurt", dyingLeaders(2) + `
		9500 r9 call z
		9501 r9 return z none poisoned`},
	{"a key that is poisoned by leaders that live, whose leases were evicted", "hurt", evictedLeaders(3) + `
		900 r9 call z
		4500 r9 return z none poisoned`},
	{"a key that is poisoned by leaders that were stopped", "", evictedLeaders(3) + `
		850 driver fault stop r1 stops
		851 driver fault stop r2 stops
		852 driver fault stop r3 stops
		900 r9 call z
		4500 r9 return z none poisoned
		4600 driver faultend stop r1
		4600 driver faultend stop r2
		4600 driver faultend stop r3`},
	{"a panic", "", failingFlight("panic", "") + `
		2003 r2 return b remote-follower panic x`},
	{"a panic that is an error elsewhere", "P6", failingFlight("panic", "") + `
		2003 r2 return b remote-follower error x`},
	{"a panic that is tried again", "P6", failingFlight("panic", "") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},

	{"an error", "", failingFlight("error", "") + `
		2003 r2 return b remote-follower error x`},
	{"an error that is not recognised", "P7", failingFlight("error", "") + `
		2003 r2 return b remote-follower other_error x`},
	{"an error that is tried again", "P7", failingFlight("error", "") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},
	{"an error that is tried again by one who came too late for it", "", failingFlight("error", "") + `
		1999 r2 return b remote-follower cancelled
		1999.5 r2 call c
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return c leader value y
		2502 r2 released y`},
	{"an error that is tried again after a fault", "", failingFlight("error", "1500 driver fault cut r2 messages\n1600 driver faultend cut r2") + `
		2004 r2 taken y
		2005 r2 start y leader
		2500 r2 end y value
		2501 r2 return b leader value y
		2502 r2 released y`},
	{"a cancelled function's result", "P7", strings.Replace(strings.Replace(usualFlight, "end x value", "end x cancelled", 1),
		"remote-follower value x", "remote-follower other_error x", 1)},
}

// dyingLeaders returns a history in which n leaders are killed one after another.
func dyingLeaders(n int) string {
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

// evictedLeaders returns a history in which n leaders live on, though their leases are
// lost.
func evictedLeaders(n int) string {
	text := `
		90 driver fault evict * keys
		800 driver faultend evict *`
	for i := range n {
		at := 100 + 200*i
		text += strings.NewReplacer("N", string(rune('1'+i)), "A", strconv.Itoa(at), "B", strconv.Itoa(at+2), "C", strconv.Itoa(at+3)).Replace(`
			A rN call a
			B rN taken xN
			C rN start xN leader
			1300 rN lost xN
			20000 rN end xN value
			20001 rN return a leader value xN
			20002 rN released xN`)
	}
	return text
}

// failingFlight returns a history in which a function fails after two callers have
// waited for more than a second.
func failingFlight(outcome, fault string) string {
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
