package history_test

// callerExamples are about the callers: P2, P5, and outcomes that no fault excuses.
var callerExamples = []example{
	{"a call that never returns", "P2", usualFlight + `400 r1 call d`},
	{"a call that never returns from a killed process", "", usualFlight + `
		400 r3 call d
		600 driver fault kill r3 kills
		601 driver faultend kill r3`},
	{"a call that was due before its process was killed", "P2", usualFlight + `
		400 r3 call d by=1000
		5000 driver fault kill r3 kills
		5001 driver faultend kill r3`},
	{"a call after its deadline", "P2", usualFlight + `
		400 r1 call d by=1000
		4000 r1 return d none cancelled`},
	{"a call after its deadline, by a Redis timeout on a slow machine", "", usualFlight + `
		400 r1 call d by=1000
		3200 r1 return d none cancelled`},
	{"a call that came after its deadline", "", usualFlight + `
		9000 r1 call d by=1000
		9001 r1 return d none cancelled`},
	{"a call after the flight timeout", "P2", usualFlight + `
		400 r1 call d by=100000
		33000 r1 return d none cancelled`},
	{"a call after its deadline, in a process that was stopped", "", usualFlight + `
		400 r1 call d by=1000
		800 driver fault stop r1 stops
		8000 driver faultend stop r1
		8500 r1 return d none cancelled`},
	{"a call after its deadline, in a process that was stopped before", "P2", usualFlight + `
		400 r1 call d by=9000
		800 driver fault stop r1 stops
		5000 driver faultend stop r1
		12500 r1 return d none cancelled`},
	{"a call after its deadline, while another process was stopped", "P2", usualFlight + `
		400 r1 call d by=1000
		800 driver fault stop r2 stops
		8000 driver faultend stop r2
		8500 r1 return d none cancelled`},

	{"a call that Redis failed", "P5", usualFlight + `
		950 driver fault pause * unusable
		1000 r1 call d
		1250 r1 return d none unavailable
		1300 driver faultend pause *`},
	{"a call that waits for Redis", "P5", usualFlight + `
		1000 driver fault pause * unusable
		3500 r1 call d by=9000
		9000 r1 return d none cancelled
		12000 driver faultend pause *`},
	{"a call that leaves before Redis has been waited for", "", usualFlight + `
		1000 driver fault pause * unusable
		3500 r1 call d by=3600
		3600 r1 return d none cancelled
		12000 driver faultend pause *`},
	{"a call that waits for Redis until it is back", "", usualFlight + `
		1000 driver fault pause * unusable
		3500 r1 call d by=9000
		7000 driver faultend pause *
		9000 r1 return d none cancelled`},
	{"a call that waits for Redis in a process that is stopped", "", usualFlight + `
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

	{"a strange return", "hurt", usualFlight + `
		400 r1 call d
		500 r1 return d none strange`},
	{"an error of nobody", "hurt", usualFlight + `
		400 r1 call d
		500 r1 return d none other_error`},
	{"a call that is refused", "hurt", usualFlight + `
		400 r1 call d
		500 r1 return d none closed`},
	{"a call that is refused by a process that closes", "", usualFlight + `
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
	{"a timeout in a process that was stopped", "", usualFlight + `
		400 r3 call d
		25000 driver fault stop r3 stops
		30300 driver faultend stop r3
		30402 r3 return d none flight_timeout`},
	{"a timeout while nothing runs", "hurt", usualFlight + `
		400 r3 call d
		30402 r3 return d none flight_timeout`},
	{"a timeout beside a flight that ended, behind a leader that had died", "hurt", diedAndFollowed + `
		10000 r3 call d
		10002 r3 taken y
		10003 r3 start y leader
		11000 r3 end y value
		11001 r3 return d leader value y
		11002 r3 released y
		28000 r1 start w fallback cause=too_large
		29500 r1 end w value
		30120 r2 return b none flight_timeout`},
	{"a timeout beside a flight that ended, while Redis could not be used", "", diedAndFollowed + `
		10000 r3 call d
		10002 r3 taken y
		10003 r3 start y leader
		10500 driver fault freeze * unreliable
		11000 r3 end y value
		11001 r3 return d leader value y
		11002 r3 released y
		28000 driver faultend freeze *
		28001 r1 start w fallback cause=too_large
		29500 r1 end w value
		30120 r2 return b none flight_timeout`},
	{"a timeout behind a leader that lives, beside a flight that ended", "", `
		110 r1 call a
		112 r1 taken x
		113 r1 start x leader
		120 r2 call b
		500 driver fault evict * keys
		600 driver faultend evict *
		10000 r3 call d
		10002 r3 taken y
		10003 r3 start y leader
		11000 r3 end y value
		11001 r3 return d leader value y
		11002 r3 released y
		30110 r1 return a none flight_timeout
		30120 r2 return b none flight_timeout
		30121 r1 end x flight_timeout`},
	{"a timeout beside a flight that had ended too soon to be waited for", "", diedAndFollowed + `
		5000 r3 call d
		5002 r3 taken y
		5003 r3 start y leader
		5100 r3 end y value
		5101 r3 return d leader value y
		5102 r3 released y
		28000 r1 start w fallback cause=too_large
		29500 r1 end w value
		30120 r2 return b none flight_timeout`},
}

// diedAndFollowed is a leader that is killed, and a caller that follows it.
const diedAndFollowed = `
		90 r0 call a
		92 r0 taken x
		93 r0 start x leader
		120 r2 call b
		500 driver fault kill r0 kills
		501 driver faultend kill r0`
