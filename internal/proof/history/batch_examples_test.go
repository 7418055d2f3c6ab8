package history_test

// batchExamples are about calls for many keys, and the ends of functions.
var batchExamples = []example{
	{"a call for two keys, one of which another replica leads", "", usualBatch + `
		1200 r1 return b/1 leader value x
		1200 r1 return b/2 remote-follower value y key=l`},
	{"a call for two keys that returns with one", "P2", usualBatch + `
		1200 r1 return b/1 leader value x`},
	{"a call for two keys that gives one the other's result", "log", usualBatch + `
		1200 r1 return b/1 leader value x
		1200 r1 return b/2 remote-follower value x key=l`},
	{"a call for one key twice", "log", usualFlight + `
		1000 r2 call b/1 of=b
		1000 r2 call b/2 of=b
		1002 r2 taken y
		1003 r2 start y leader
		1100 r2 end y value
		1101 r2 return b/1 leader value y
		1101 r2 return b/2 leader value y
		1102 r2 released y`},
	{"a function that waits for what another replica leads", "P2", `
		100 r2 call a key=l
		102 r2 taken y key=l
		103 r2 start y leader key=l
		110 r1 call b/1 of=b
		110 r1 call b/2 of=b key=l
		112 r1 taken x
		2900 r2 end y value key=l
		2901 r2 return a leader value y key=l
		2902 r2 released y key=l
		2903 r1 start x leader
		3000 r1 end x value
		3001 r1 return b/1 leader value x
		3001 r1 return b/2 remote-follower value y key=l
		3002 r1 released x`},
	{"a function that begins late in a process that was stopped", "", `
		110 r1 call a
		112 r1 taken x
		113 driver fault stop r1 stops
		2900 driver faultend stop r1
		2903 r1 start x leader
		3000 r1 end x value
		3001 r1 return a leader value x
		3002 r1 released x`},
	{"a key without a result, on all replicas", "", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call c
		900 r1 end x no_result
		901 r1 return a leader no_result flight=x
		905 r1 released x
		906 r2 return c remote-follower no_result flight=x`},
	{"a key without a result, though its function had returned before the call came", "P3", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x no_result
		901 r1 return a leader no_result flight=x
		904 r2 call c
		905 r1 released x
		906 r2 return c remote-follower no_result flight=x`},
	{"a key without a result whose function had one", "log", usualFlight + `
		850 r2 call d
		906 r2 return d remote-follower no_result flight=x`},
	{"a key without a result of no function", "hurt", usualFlight + `
		850 r2 call d
		906 r2 return d remote-follower no_result`},
	{"a function without a result that ran again for who had waited", "P7", `
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call c
		1900 r1 end x no_result
		1901 r1 return a leader no_result flight=x
		1905 r1 released x
		1907 r2 taken y
		1908 r2 start y leader
		2000 r2 end y value
		2001 r2 return c leader value y
		2002 r2 released y`},
	{"a call for many keys that panics, so that nothing is known of the others", "", `
		100 r1 call b/1 of=b
		100 r1 call b/2 of=b key=l
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x panic
		1200 r1 return b/1 leader panic x
		1200 r1 return b/2 - unwound key=l
		1201 r1 released x`},
	{"a call for many keys of which nothing is known, and which did not panic", "hurt", usualBatch + `
		1200 r1 return b/1 leader value x
		1200 r1 return b/2 - unwound key=l`},

	{"a key of many that timed out before the next flight of its key", "", timedOutBatch + `
		33000 r1 return b/1 leader value x
		33000 r1 return b/2 remote-follower flight_timeout flight=y key=l`},
	{"a key of many that timed out though it could have had a result", "hurt", timedOutBatch + `
		33000 r1 return b/1 leader value x
		33000 r1 return b/2 remote-follower flight_timeout flight=w key=l`},

	{"a call that came between the record of a function's end and its return", "", usualFlight + `
		900.5 r1 call d
		901 r1 over x asked=900.8
		906 r1 return d local-follower value x`},
	{"a call that came after a function had returned", "P3", usualFlight + `
		900.5 r1 call d
		901 r1 over x asked=900.4
		906 r1 return d local-follower value x`},
	{"a function that returned before the record of its end", "log", usualFlight + `
		901 r1 over x asked=899`},

	{"a key of many that had its result before Redis froze", "", batchAndFreeze + `
		800 r2 end y value key=l
		801 r2 return a leader value y key=l
		802 r2 released y key=l
		9000 r1 end x value
		9001 r1 return b/1 leader value x
		9001 r1 return b/2 remote-follower value y key=l
		9500 driver faultend freeze *`},
	{"a key of many that waited for a Redis that was frozen", "P5", batchAndFreeze + `
		8800 r2 end y value key=l
		8801 r2 return a leader value y key=l
		9000 r1 end x value
		9001 r1 return b/1 leader value x
		9001 r1 return b/2 remote-follower value y key=l
		9500 driver faultend freeze *`},
}

// usualBatch is a call of r1 for two keys, of which r2 leads one.
const usualBatch = `
	100 r2 call a key=l
	102 r2 taken y key=l
	103 r2 start y leader key=l
	110 r1 call b/1 of=b
	110 r1 call b/2 of=b key=l
	112 r1 taken x
	113 r1 start x leader
	900 r1 end x value
	901 r1 released x
	1100 r2 end y value key=l
	1101 r2 return a leader value y key=l
	1102 r2 released y key=l
`

// timedOutBatch is a call of r1 for two keys. The first flight of the second one lasts
// longer than its timeout, and other flights of that key come and go before the call returns.
const timedOutBatch = `
	100 r2 call a key=l
	102 r2 taken y key=l
	103 r2 start y leader key=l
	3000 r1 call b/1 of=b
	3000 r1 call b/2 of=b key=l
	3002 r1 taken x
	3003 r1 start x leader
	20100 r2 end y flight_timeout key=l
	20101 r2 return a leader flight_timeout y key=l
	20102 r2 released y key=l
	23000 r2 call c key=l
	23002 r2 taken z key=l
	23003 r2 start z leader key=l
	23500 r2 end z value key=l
	23501 r2 return c leader value z key=l
	23502 r2 released z key=l
	32900 r1 end x value
	32901 r1 released x
`

// batchAndFreeze is such a call, and a Redis that is frozen meanwhile.
const batchAndFreeze = `
	100 r2 call a key=l
	102 r2 taken y key=l
	103 r2 start y leader key=l
	110 r1 call b/1 of=b
	110 r1 call b/2 of=b key=l
	112 r1 taken x
	113 r1 start x leader
	1000 driver fault freeze * unusable,messages
`
