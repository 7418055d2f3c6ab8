package load

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	maxBars   = 30
	maxSlices = 60
)

// Bar is how many answers took at least From and less than To.
type Bar struct {
	From, To time.Duration
	Count    int
}

// Slice is what ended in one part of a run.
type Slice struct {
	Start   time.Duration // since the run began
	OK      int
	Failed  int
	Average time.Duration // latency of those that were answered
	Max     time.Duration
}

// bars sorts a histogram in microseconds into at most maxBars of one width, a
// round number, without a gap between them.
func bars(h *hdrhistogram.Histogram) []Bar {
	if h.TotalCount() == 0 {
		return nil
	}
	width := roundUp(float64(h.Max()-h.Min()+1) / (maxBars - 1))
	first := h.Min() / width * width
	bars := make([]Bar, (h.Max()-first)/width+1)
	for i := range bars {
		from := first + int64(i)*width
		bars[i] = Bar{From: micros(from), To: micros(from + width)}
	}
	for _, b := range h.Distribution() {
		if b.Count > 0 {
			// A value of the histogram stands for a range, which may begin
			// before the smallest that was recorded.
			i := (max(b.From, h.Min()) - first) / width
			bars[i].Count += int(b.Count)
		}
	}
	// The largest value stands for a range, too, which ends after it.
	for bars[len(bars)-1].Count == 0 {
		bars = bars[:len(bars)-1]
	}
	return bars
}

// roundUp returns the next of 1, 2, 5, 10, 20, 50, ….
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

// timeline counts what ends in slices of one width. When there are too many,
// it makes one of each two: a run of any length has between half of maxSlices
// and maxSlices, and none is kept apart for each request.
type timeline struct {
	width  time.Duration
	slices []slice
}

type slice struct {
	ok, failed, answered int
	total, max           time.Duration
}

func newTimeline() *timeline { return &timeline{width: time.Millisecond} }

func (t *timeline) add(at, took time.Duration, answered, ok bool) {
	i := int(at / t.width)
	for ; i >= maxSlices; i = int(at / t.width) {
		t.halve()
	}
	for len(t.slices) <= i {
		t.slices = append(t.slices, slice{})
	}
	s := &t.slices[i]
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
	for i := 0; i < len(t.slices); i += 2 {
		s := t.slices[i]
		if i+1 < len(t.slices) {
			next := t.slices[i+1]
			s.ok += next.ok
			s.failed += next.failed
			s.answered += next.answered
			s.total += next.total
			s.max = max(s.max, next.max)
		}
		t.slices[i/2] = s
	}
	t.slices = t.slices[:(len(t.slices)+1)/2]
}

func (t *timeline) result() []Slice {
	var all []Slice
	for i, s := range t.slices {
		out := Slice{Start: time.Duration(i) * t.width, OK: s.ok, Failed: s.failed, Max: s.max}
		if s.answered > 0 {
			out.Average = s.total / time.Duration(s.answered)
		}
		all = append(all, out)
	}
	return all
}
