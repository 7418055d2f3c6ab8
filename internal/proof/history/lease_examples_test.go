package history_test

import (
	"strings"
)

// leaseExamples are about P1: which process may run a function.
var leaseExamples = []example{
	{"two leases at once", "P1", usualFlight + `
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
	{"a lease beside what another renews for its own followers", "", `
		90 driver fault evict * keys
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		600 r2 call b
		602 r2 taken y
		603 r2 start y leader
		700 driver faultend evict *
		900 r2 end y value
		901 r2 return b leader value y
		902 r2 released y
		1102 r1 lost x
		2102 r1 renewed x
		2500 r2 call c
		2502 r2 taken z
		2503 r2 start z leader
		2600 r2 end z value
		2601 r2 return c leader value z
		5000 r1 end x value
		5001 r1 return a leader value x`},
	{"a lease that is lost by the first of two injections, the second of which ends before", "", `
		90 driver fault several r9 keys injection=1
		95 driver fault several r9 unreliable injection=2
		98 driver faultend several r9 injection=2
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		600 r2 call b
		602 r2 taken y
		603 r2 start y leader
		700 driver faultend several r9 injection=1
		900 r2 end y value
		901 r2 return b leader value y
		902 r2 released y
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
	{"two leases while Redis loses its keys", "", usualFlight + `
		400 driver fault failover * keys
		500 r2 taken y
		501 r2 start y leader
		600 driver faultend failover *
		800 r2 end y value`},
	{"two leases after Redis had lost its keys", "P1", usualFlight + `
		20 driver fault failover * keys
		50 driver faultend failover *
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"two leases after a Forget", "", usualFlight + `
		400 r3 forget g
		401 r3 forgotten g
		500 r2 taken y
		501 r2 start y leader
		800 r2 end y value`},
	{"two leases after a Forget of before", "P1", usualFlight + `
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
	{"a leader without lease", "P1", usualFlight + `
		5000 r2 start y leader
		5001 r2 end y value`},
	{"one flight that runs twice", "P1", strings.Replace(usualFlight, "906", "300 r1 start y leader\n400 r1 end y value\n906", 1)},
	{"a fallback without reason", "P1", usualFlight + `
		5000 r2 start y fallback cause=connection
		5001 r2 end y value`},
	{"a fallback long after the fault", "P1", usualFlight + `
		1000 driver fault pause * unusable
		2000 driver faultend pause *
		6000 r2 start y fallback cause=connection
		6001 r2 end y value`},
	{"a fallback for a fault of another process", "P1", usualFlight + `
		1000 driver fault cut r1 unreliable
		2000 r2 start y fallback cause=connection
		2001 r2 end y value
		2002 driver faultend cut r1`},
	{"a fallback for a fault of another key", "P1", usualFlight + `
		1000 driver fault cut * unreliable keys=k1,k2
		2000 r2 start y fallback cause=connection
		2001 r2 end y value
		2002 driver faultend cut *`},
	{"a fallback for a fault of some keys", "", usualFlight + `
		1000 driver fault cut * unreliable keys=k,k2
		2000 r2 start y fallback cause=connection
		2001 r2 end y value
		2002 driver faultend cut *`},
	{"a fallback just after the fault", "", usualFlight + `
		1000 driver fault pause * unusable
		2000 driver faultend pause *
		3000 r2 start y fallback cause=down
		3001 r2 end y value`},
	{"a fallback for a result that is too large", "", usualFlight + `
		907 r2 start y fallback cause=too_large
		950 r2 end y value`},
}
