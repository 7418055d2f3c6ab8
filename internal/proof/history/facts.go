package history

import (
	"cmp"
	"math"
	"slices"
	"sort"
	"time"
)

// never is later than every record.
const never = math.MaxInt64

// facts is a history in the shape that the promises are asked in. Times are as
// in the records, and all lists are by time.
type facts struct {
	limits  Limits
	last    int64 // time of the last record
	process map[string]*process
	keys    map[string]*key
	calls   []*call
	faults  []*fault
}

// process is one incarnation of a replica.
type process struct {
	name    string
	known   bool // it had a Begin
	begin   int64
	set     Settings
	closing int64 // never: it was not closed
	exit    int64 // never: it did not end in good order
	killed  int64 // from when it may be dead; never: it was not killed
}

// key is what happened to one key in all processes.
type key struct {
	calls      []*call
	executions []*execution // by start
	leases     []*lease     // by the first record
	forgets    []*forget    // by begin
	local      map[string]*localKey

	openUntil      []int64 // the latest openEnd of executions[:i+1]
	forgottenUntil []int64 // the latest end of effect of forgets[:i+1]
}

// localKey is what happened to one key in one process.
type localKey struct {
	executions []*execution
	runsUntil  []int64 // the latest end of executions[:i+1]
	left       []int64 // when calls returned with no execution's result
}

type call struct {
	called   *Record
	returned *Record // nil: it never did
	process  *process
	key      *key
	got      *execution // whose result it got; nil: none that ended before
	hurt     bool
}

type execution struct {
	start   *Record
	end     *Record // nil: it never did
	process *process
	key     *key
	lease   *lease // nil: it ran without
	// By process: when a call first returned with its result, and how many
	// calls got it otherwise than as local followers.
	firstReturn map[string]int64
	initiators  map[string]int
	firstCall   int64 // when the first of the calls that got it came
}

// lease is one flight's.
type lease struct {
	flight    string
	process   *process
	taken     *Record   // nil: never, as far as Redis answered
	held      []*Record // taken and renewed
	lost      *Record
	released  *Record
	execution *execution
}

type forget struct {
	begin   *Record
	end     *Record // nil: it never returned
	process *process
}

// fault is one injection: it lasts from begin to end.
type fault struct {
	name       string
	target     string // empty: all processes
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

// openEnd is until when others may wait for e: its end; or, when it was killed,
// the end of its lease and as long as it may take to see that.
func (e *execution) openEnd(l Limits) int64 {
	if !e.killed() {
		return e.endAt()
	}
	end := e.process.killed
	if e.lease != nil && len(e.lease.held) > 0 {
		end = max(end, later(e.lease.last().Asked, e.process.set.LeaseTTL))
	}
	return later(end, l.Held)
}

// last is the latest record of the lease being held.
func (l *lease) last() *Record { return l.held[len(l.held)-1] }

// hits says whether the fault hits a process; the empty name is any.
func (f *fault) hits(process string) bool {
	return f.target == "" || process == "" || f.target == process
}

// touched says whether a fault of the wanted effects hit the process between
// from and to, or had ended less than after before from.
func (f *facts) touched(process string, from, to int64, after time.Duration, want func(Effects) bool) bool {
	for _, x := range f.faults {
		if x.begin > to {
			break
		}
		if want(x.effects) && x.hits(process) && later(x.end, after) >= from {
			return true
		}
	}
	return false
}

// uncovered is how much of the time between from and to was not covered by a
// fault of the wanted effects that hit one of the processes.
func (f *facts) uncovered(from, to int64, want func(Effects) bool, processes ...string) time.Duration {
	var free int64
	for _, x := range f.faults {
		if x.begin >= to || from >= to {
			break
		}
		if want(x.effects) && slices.ContainsFunc(processes, x.hits) {
			free += max(0, x.begin-from)
			from = max(from, x.end)
		}
	}
	return time.Duration(free + max(0, to-from))
}

// Effects that the promises ask for.

func losesKeys(e Effects) bool { return e.LosesKeys || e.Garbage }
func stops(e Effects) bool     { return e.Stops }
func unusable(e Effects) bool  { return e.Unusable }
func fails(e Effects) bool     { return e.Unusable || e.Unreliable || e.Delay > 0 }
func delays(e Effects) bool    { return fails(e) || e.Stops }

// disturbs is every effect but that others die.
func disturbs(e Effects) bool { return e != Effects{} && e != Effects{Kills: true} }

func anyEffect(e Effects) bool { return e != Effects{} }

// later is at plus d, or never.
func later(at int64, d time.Duration) int64 {
	if at > never-int64(d) {
		return never
	}
	return at + int64(d)
}

func between(from, to int64) time.Duration { return time.Duration(to - from) }

// firstFrom is the first of the ascending times that is not before at; never
// if there is none.
func firstFrom(times []int64, at int64) int64 {
	if i, _ := slices.BinarySearch(times, at); i < len(times) {
		return times[i]
	}
	return never
}

// latestOf returns for each i the greatest of what until says of list[:i+1].
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

// anyOpen says whether one of the executions was there between from and to.
// They start in order, and latest is latestOf them.
func anyOpen(list []*execution, latest []int64, from, to int64) bool {
	n := sort.Search(len(list), func(i int) bool { return list[i].start.At > to })
	return n > 0 && latest[n-1] >= from
}

// split says whether the process may have had two local flights of the key
// between from and to: a caller left, the key was forgotten, or the connection
// was replaced, which forgets every key.
func (f *facts) split(k *key, process string, from, to int64) bool {
	from -= int64(f.limits.Slack)
	if l := k.local[process]; l != nil && firstFrom(l.left, from) <= to {
		return true
	}
	return k.forgottenBetween(from, to, f.limits.Slack) ||
		f.touched(process, from, to, f.limits.aftermath(f.process[process].set), disturbs)
}

// forgottenBetween says whether a Forget of the key may have been heard of
// anywhere between from and to.
func (k *key) forgottenBetween(from, to int64, notice time.Duration) bool {
	return slices.ContainsFunc(k.forgets, func(x *forget) bool {
		return x.begin.At <= to && (x.end == nil || later(x.end.At, notice) >= from)
	})
}

func sortBy[T any](list []T, at func(T) int64) {
	slices.SortStableFunc(list, func(a, b T) int { return cmp.Compare(at(a), at(b)) })
}
