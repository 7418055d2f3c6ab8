package history

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// never is later than the time of every record.
const never = math.MaxInt64

// facts is a history in the form in which the checks need it. Times are those of the
// records, and all lists are sorted by time.
type facts struct {
	limits  Limits
	last    int64 // the time of the last record
	process map[string]*process
	keys    map[string]*key
	calls   []*call
	faults  []*fault
}

// process is one incarnation of a replica.
type process struct {
	name     string
	known    bool // has a Begin record
	begin    int64
	settings Settings
	closing  int64 // never: Close was not called
	exit     int64 // never: it did not exit cleanly
	killed   int64 // from this time it may be dead; never: it was not killed
}

// key has the events of one key in all processes.
type key struct {
	calls      []*call
	executions []*execution // sorted by start
	leases     []*lease     // sorted by their first record
	forgets    []*forget    // sorted by begin
	local      map[string]*localKey

	openUntil      []int64 // [i] is the latest openEnd of executions[:i+1]
	forgottenUntil []int64 // [i] is the latest forgottenUntil of forgets[:i+1]
}

// localKey has the events of one key in one process.
type localKey struct {
	executions []*execution
	runsUntil  []int64 // [i] is the latest end of executions[:i+1]
	left       []int64 // when calls returned without the result of an execution
}

type call struct {
	called   *Record
	returned *Record // nil: it never returned
	batch    []*call // the calls of all keys, where it is of one key of many; nil: it is not
	process  *process
	key      *key
	got      *execution // the execution whose result it got; nil: none, or one that had not ended
	hurt     bool
}

type execution struct {
	start     *Record
	end       *Record // nil: it never ended
	process   *process
	key       *key
	lease     *lease // nil: it ran without a lease
	firstCall int64  // when the earliest of the calls that got the result began
}

// lease is the lease of one flight.
type lease struct {
	flight    string
	process   *process
	taken     *Record   // nil: it was never taken, or Redis' answer did not arrive
	held      []*Record // the records "taken" and "renewed"
	lost      *Record
	released  *Record
	execution *execution
}

type forget struct {
	begin   *Record
	end     *Record // nil: it never returned
	process *process
}

// fault is one injected fault, which lasts from begin to end.
type fault struct {
	name       string
	target     string          // empty: all processes
	keys       map[string]bool // nil: all
	begin, end int64
	effects    Effects
	worst      time.Duration
}

func (c *call) endAt() int64 {
	if c.returned == nil {
		return never
	}
	return c.returned.At
}

func (e *execution) endAt() int64 {
	if e.end == nil {
		return never
	}
	return e.end.At
}

func (e *execution) killed() bool { return e.end == nil && e.process.killed != never }

// openEnd returns until when others may wait for e. That is its end. If its process was
// killed, it is the end of its lease, and the time that others may need to notice it.
func (e *execution) openEnd(l Limits) int64 {
	if !e.killed() {
		return e.endAt()
	}
	end := e.process.killed
	if e.lease != nil && len(e.lease.held) > 0 {
		end = max(end, later(e.lease.last().Asked, e.process.settings.LeaseTTL))
	}
	return later(end, l.Held)
}

// last returns the last record of the lease being held.
func (l *lease) last() *Record { return l.held[len(l.held)-1] }

// hits reports whether the fault hits a process. An empty name stands for any process.
func (f *fault) hits(process string) bool {
	return f.target == "" || process == "" || f.target == process
}

// hitsKey reports whether the fault hits a key.
func (f *fault) hitsKey(key string) bool { return f.keys == nil || f.keys[key] }

// faultTouched reports whether a fault with such effects hit the process between from
// and to, or ended less than after before from.
func (f *facts) faultTouched(process string, from, to int64, after time.Duration, want func(Effects) bool) bool {
	return f.touched(from, to, after, func(x *fault) bool { return want(x.effects) && x.hits(process) })
}

// touched reports whether such a fault lasted between from and to, or ended less than
// after before from.
func (f *facts) touched(from, to int64, after time.Duration, want func(*fault) bool) bool {
	for _, x := range f.faults {
		if x.begin > to {
			break
		}
		if want(x) && later(x.end, after) >= from {
			return true
		}
	}
	return false
}

// The functions below select faults by their effects.

func losesKeys(e Effects) bool { return e.LosesKeys || e.Garbage }
func setsClock(e Effects) bool { return e.SetsClock }
func stops(e Effects) bool     { return e.Stops }
func unusable(e Effects) bool  { return e.Unusable }
func fails(e Effects) bool     { return e.Unusable || e.Unreliable || e.Holds || e.Delay > 0 }

// disturbs selects faults that affect their target without killing it.
func disturbs(e Effects) bool { return e != Effects{} && e != Effects{Kills: true} }

func anyEffect(e Effects) bool { return e != Effects{} }

// later returns at plus d, and never if that is later than never.
func later(at int64, d time.Duration) int64 {
	if at > never-int64(d) {
		return never
	}
	return at + int64(d)
}

func between(from, to int64) time.Duration { return time.Duration(to - from) }

// firstFrom returns the first of the ascending times that is not before at, or never if
// there is none.
func firstFrom(times []int64, at int64) int64 {
	if i, _ := slices.BinarySearch(times, at); i < len(times) {
		return times[i]
	}
	return never
}

// latestOf returns a list whose element i is the largest value of until for list[:i+1].
func latestOf[T any](list []T, until func(T) int64) []int64 {
	latest := make([]int64, len(list))
	for i, item := range list {
		latest[i] = until(item)
		if i > 0 {
			latest[i] = max(latest[i], latest[i-1])
		}
	}
	return latest
}

// anyOpen reports whether one of the executions was running between from and to. The
// list must be sorted by start, and latest must be the latestOf it.
func anyOpen(list []*execution, latest []int64, from, to int64) bool {
	n := sort.Search(len(list), func(i int) bool { return list[i].start.At > to })
	return n > 0 && latest[n-1] >= from
}

// mayHaveTwoFlights reports whether the process may have had two local flights of the
// key between from and to. That happens when a caller left, when the key was forgotten,
// or when the connection was replaced, which forgets every key.
func (f *facts) mayHaveTwoFlights(k *key, process string, from, to int64) bool {
	from -= int64(f.limits.Slack)
	if l := k.local[process]; l != nil && firstFrom(l.left, from) <= to {
		return true
	}
	return k.forgottenBetween(from, to, f.limits.Slack) ||
		f.faultTouched(process, from, to, f.limits.aftermath(f.process[process].settings), disturbs)
}

// forgottenBetween reports whether a Forget of the key may have taken effect in some
// process between from and to.
func (k *key) forgottenBetween(from, to int64, notice time.Duration) bool {
	return slices.ContainsFunc(k.forgets, func(x *forget) bool {
		return x.begin.At <= to && (x.end == nil || later(x.end.At, notice) >= from)
	})
}

func sortBy[T any](list []T, at func(T) int64) {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(at(a), at(b)) })
}
