package shadow

import (
	"math"
	"time"
)

// counted is a Group, as far as it is counted.
type counted struct {
	name   string
	seed   uint64 // of the hashes of its keys
	shards [shardCount]recent
	last   recent // what of it was collected; of the goroutine that collects
	judged judged // guarded by the Fleet's mu

	// The counts at the last ResetStats; guarded by the Fleet's mu.
	sumsAt   sums
	judgedAt judged
}

// recent are the calls that have ended. In counted.shards each is guarded by the mu of the
// shard of the same number.
type recent struct {
	all  sums
	tail sums // those of keys that are not followed for their own sake
}

// sums count calls that have ended.
type sums struct {
	calls uint64
	time  time.Duration
	led   tally // by calls that would have led in their process
}

// tally counts flights.
type tally struct {
	flights uint64
	time    time.Duration
}

func (s *sums) add(leads bool, part time.Duration) {
	s.calls++
	s.time += part
	if leads {
		s.led.add(part)
	}
}

func (s *sums) plus(o sums, sign int) {
	s.calls += uint64(sign) * o.calls
	s.time += time.Duration(sign) * o.time
	s.led.plus(o.led, sign)
}

func (t *tally) add(part time.Duration) {
	t.flights++
	t.time += part
}

func (t *tally) plus(o tally, sign int) {
	t.flights += uint64(sign) * o.flights
	t.time += time.Duration(sign) * o.time
}

// ended counts a call. The caller holds the shard's mu.
func (g *counted) ended(shard int, c *call, part time.Duration) {
	r := &g.shards[shard]
	r.all.add(c.leads, part)
	if !c.exact {
		r.tail.add(c.leads, part)
	}
}

// sum returns all calls that have ended.
func (f *Fleet) sum(g *counted) (r recent) {
	for i := range f.shards {
		f.shards[i].mu.Lock()
		r.all.plus(g.shards[i].all, 1)
		r.tail.plus(g.shards[i].tail, 1)
		f.shards[i].mu.Unlock()
	}
	return r
}

// recent returns the calls of each group that have ended since it was called last.
func (f *Fleet) recent() map[*counted]recent {
	f.mu.Lock()
	groups := f.groups
	f.mu.Unlock()
	counts := make(map[*counted]recent, len(groups))
	for _, g := range groups {
		now := f.sum(g)
		last := g.last
		g.last = now
		now.all.plus(last.all, -1)
		now.tail.plus(last.tail, -1)
		counts[g] = now
	}
	return counts
}

// cells is the number of random groups of sampled keys.
const cells = 64

// judged is what the seconds that count say of a group.
type judged struct {
	ended uint64 // calls of all seconds that are over, whether they count or not
	all   sums
	tail  sums
	exact tally // of the whole fleet's flights, those led here, of keys that are followed for their own sake
	cells [cells]cell
}

// cell is a random group of sampled keys: the flights that would have been led here.
type cell struct{ process, fleet tally }

// take notes the calls of a second that counts.
func (j *judged) take(r recent) {
	j.ended += r.all.calls
	j.all.plus(r.all, 1)
	j.tail.plus(r.tail, 1)
}

// count counts a followed call. If it is not known whether it led in the fleet, it is
// taken to have led if it did in its process.
func (j *judged) count(e *event, led, known bool) {
	if !e.exact {
		if !known {
			return
		}
		c := &j.cells[e.key>>20%cells]
		if e.leads {
			c.process.add(e.part)
		}
		if led {
			c.fleet.add(e.part)
		}
		return
	}
	if led || !known && e.leads {
		j.exact.add(e.part)
	}
}

func (j judged) minus(o judged) judged {
	j.ended -= o.ended
	j.all.plus(o.all, -1)
	j.tail.plus(o.tail, -1)
	j.exact.plus(o.exact, -1)
	for i := range j.cells {
		j.cells[i].process.plus(o.cells[i].process, -1)
		j.cells[i].fleet.plus(o.cells[i].fleet, -1)
	}
	return j
}

// estimate returns how many flights the fleet would have led here, and how long their
// functions would have run, with their standard errors. total is what this process would
// have led in all seconds.
func (j *judged) estimate(total tally, oneOf uint64) Tier {
	flights := func(t tally) float64 { return float64(t.flights) }
	seconds := func(t tally) float64 { return t.time.Seconds() }
	executions, executionsError := j.part(flights, total, oneOf)
	took, tookError := j.part(seconds, total, oneOf)
	return Tier{
		Executions: executions, ExecutionsError: executionsError,
		Time: inSeconds(took), TimeError: inSeconds(tookError),
	}
}

func inSeconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// part is estimate for one measure of flights.
func (j *judged) part(of func(tally) float64, total tally, oneOf uint64) (estimate, err float64) {
	if of(j.all.led) == 0 {
		return of(total), of(total)
	}
	ratio, ratioError := j.ratio(of, oneOf)
	scale := of(total) / of(j.all.led)
	estimate = (of(j.exact) + of(j.tail.led)*ratio) * scale
	return min(estimate, of(total)), of(j.tail.led) * ratioError * scale
}

// ratio returns which part the fleet's flights of sampled keys are of those of the
// processes, and its standard error, by how much the cells differ. Of a sample that is
// everything there is no error.
func (j *judged) ratio(of func(tally) float64, oneOf uint64) (ratio, err float64) {
	var process, fleet tally
	for _, c := range j.cells {
		process.plus(c.process, 1)
		fleet.plus(c.fleet, 1)
	}
	if of(process) == 0 {
		return 1, 1
	}
	ratio = of(fleet) / of(process)
	var squares float64
	for _, c := range j.cells {
		d := of(c.fleet) - ratio*of(c.process)
		squares += d * d
	}
	// Where hardly any flight of the sample is spared, the cells hardly differ, although
	// another sample might have some. The number that is spared is at least as uncertain as
	// a count of rare events, one more than was seen.
	flight := of(process) / float64(process.flights)
	spared := max(float64(process.flights)-float64(fleet.flights), 0)
	squares = max(squares*cells/(cells-1), (spared+1)*flight*flight)
	left := 1 - 1/float64(oneOf) // of the keys, those that are not in the sample
	return ratio, math.Sqrt(left*squares) / of(process)
}
