package load

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxBuckets   = 30
	maxIntervals = 60
)

// Bucket is the number of responses with a latency of at least From and less than To.
type Bucket struct {
	From, To time.Duration
	Count    int
}

// Interval is one part of a run, and what ended in it.
type Interval struct {
	Start   time.Duration // since the start of the run
	OK      int
	Failed  int
	Average time.Duration // latency of the requests that got a response
	Max     time.Duration
}

// buckets sorts a histogram of microseconds into at most maxBuckets. All have the same
// width, which is a round number, and there is no gap between them.
func buckets(h *hdrhistogram.Histogram) []Bucket {
	if h.TotalCount() == 0 {
		return nil
	}
	width := roundUp(float64(h.Max()-h.Min()+1) / (maxBuckets - 1))
	first := h.Min() / width * width
	bars := make([]Bucket, (h.Max()-first)/width+1)
	for i := range bars {
		from := first + int64(i)*width
		bars[i] = Bucket{From: micros(from), To: micros(from + width)}
	}
	for _, b := range h.Distribution() {
		if b.Count > 0 {
			// A value of the histogram stands for a range, which may begin below the
			// smallest value recorded.
			i := (max(b.From, h.Min()) - first) / width
			bars[i].Count += int(b.Count)
		}
	}
	// The range of the largest value may end above it.
	for bars[len(bars)-1].Count == 0 {
		bars = bars[:len(bars)-1]
	}
	return bars
}

// roundUp returns the smallest of 1, 2, 5, 10, 20, 50, … that is not less than x.
func roundUp(x float64) int64 {
	power := math.Pow(10, math.Floor(math.Log10(max(x, 1))))
	for _, step := range []float64{1, 2, 5} {
		if x <= step*power {
			return int64(step * power)
		}
	}
	return int64(10 * power)
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// timeline counts requests by the time of their end, in intervals of one width. When
// there are too many intervals, it merges them in pairs. So its size does not depend on
// the length of the run or the number of requests.
type timeline struct {
	width     time.Duration
	intervals []interval
}

type interval struct {
	ok, failed, answered int
	total, max           time.Duration
}

func newTimeline() *timeline { return &timeline{width: time.Millisecond} }

func (t *timeline) add(at, took time.Duration, answered, ok bool) {
	i := int(at / t.width)
	for ; i >= maxIntervals; i = int(at / t.width) {
		t.halve()
	}
	for len(t.intervals) <= i {
		t.intervals = append(t.intervals, interval{})
	}
	s := &t.intervals[i]
	if ok {
		s.ok++
	} else {
		s.failed++
	}
	if answered {
		s.answered++
		s.total += took
		s.max = max(s.max, took)
	}
}

func (t *timeline) halve() {
	t.width *= 2
	for i := 0; i < len(t.intervals); i += 2 {
		s := t.intervals[i]
		if i+1 < len(t.intervals) {
			next := t.intervals[i+1]
			s.ok += next.ok
			s.failed += next.failed
			s.answered += next.answered
			s.total += next.total
			s.max = max(s.max, next.max)
		}
		t.intervals[i/2] = s
	}
	t.intervals = t.intervals[:(len(t.intervals)+1)/2]
}

func (t *timeline) result() []Interval {
	var all []Interval
	for i, s := range t.intervals {
		out := Interval{Start: time.Duration(i) * t.width, OK: s.ok, Failed: s.failed, Max: s.max}
		if s.answered > 0 {
			out.Average = s.total / time.Duration(s.answered)
		}
		all = append(all, out)
	}
	return all
}
