package heat

import (
	"math"
	"time"
)

const (
	// worthAsking is the chance to share from which on a flight asks. Asking costs two
	// commands, and three where the flight is shared. With calls of Zipf(1.0) over 100,000
	// keys, functions of 20 ms and three replicas, the functions that this spares are all but
	// 2 % of those that can be, for less than a fifth of the commands: see TestOnlyKeysThatAreSharedAreAskedFor.
	worthAsking = 0.17
	// grant is how many flights ask after one that was shared. So a key of which more than
	// one flight in grant is shared is asked for from then on, whatever else is known of it.
	grant = 5
	// trust is how many flights that asked in vain, with none that was shared since, halve
	// what is expected of a key; vainFor is in how much time half of them is forgotten.
	trust   = 8
	vainFor = 30.0 // seconds

	// crowd is what each call that waits for a flight here adds to the chance that the next
	// flight is shared, and each flight takes the share crowdFades of it away. Two calls that
	// wait for one flight are enough, or one for each of two in a row.
	crowd      = 0.16
	crowdFades = 0.25

	mostEarly = 10 // calls of a crowd that are counted before its flight begins

	// One period in so many is one in which flights ask that are not expected to be shared:
	// at two commands for each that asks, 0.02 commands a flight.
	sampledOneIn = 100
	period       = time.Second
	// window is for how long calls are counted, at the least, in seconds, and windowRuns the
	// same in runs of the function: so a rate that matters is told by as many calls, however
	// long functions take. settle is added to the time in which they came: two calls in
	// a row are no rate.
	window     = 10.0
	windowRuns = 30
	settle     = 1.0

	// toldFor is for how long other replicas, once told that a key is hot, are not told
	// again, in seconds.
	toldFor = 1.0
)

// window returns for how long calls are counted, in seconds.
func (e *entry) window() float64 { return max(window, windowRuns*float64(e.takes)) }

// fades returns how much of a count is left at a time after last.
func (e *entry) fades(now float64) float64 { return math.Exp(min(e.last-now, 0) / e.window()) }

// fade makes the counts those of a later time.
func (e *entry) fade(now float64) {
	if now <= e.last {
		return
	}
	e.calls *= float32(e.fades(now))
	e.vain *= float32(math.Exp2((e.last - now) / vainFor))
	e.last = now
}

// crowds counts calls that wait for a flight here that has asked nobody.
func (e *entry) crowds(calls float32) { e.crowd = min(e.crowd+crowd*calls, 1) }

// judge says whether the key is hot. A function that is over before Redis could answer is
// not worth asking, whoever else runs it.
func (k *Keys) judge(e *entry, now float64) {
	trip := float32(time.Duration(k.trip.Load()).Seconds())
	quick := e.takes > 0 && e.takes < trip
	e.hot = !quick && (e.grants > 0 || e.chance(now, float64(k.others.Load())) >= worthAsking)
}

// chance returns how likely it is that a flight of the key is shared.
func (e *entry) chance(now, others float64) float64 {
	w := e.window()
	counted := w * (1 - math.Exp((e.first-now)/w)) // a count that fades is that of a shorter time
	rate := float64(e.calls) / (counted + settle)
	alone := math.Exp(-others*rate*float64(e.takes)) * (1 - float64(e.crowd))
	return (1 - alone) * trust / (trust + float64(e.vain))
}

// sampled says whether a flight that begins now is to ask though it is not expected to be
// shared. What two replicas do at the same moment is found only if both ask: so it is the
// same periods of time on all of them, by their own clocks, and other ones for each key. A key
// whose flights meet each time is found after about a hundred periods in which it was called.
// A key that comes once is not: it is asked for only if it is known.
// Where clocks differ by more than a period, this finds nothing.
func sampled(id ID, now time.Time) bool {
	n := uint64(now.UnixNano() / int64(period))
	return mix(uint64(id)^mix(n))%sampledOneIn == 0
}
