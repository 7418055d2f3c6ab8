package load

import (
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"pgregory.net/rapid"
)

func TestBucketsHoldEveryResponseWithoutAGap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(1, 300_000_000), 1, 200).Draw(t, "µs")
		h := hdrhistogram.New(1, 300_000_000, 3)
		for _, v := range values {
			_ = h.RecordValue(v)
		}
		got := buckets(h)
		count := 0
		for i, b := range got {
			count += b.Count
			if b.To <= b.From || i > 0 && b.From != got[i-1].To {
				t.Fatalf("%v to %v after %v", b.From, b.To, got[max(i-1, 0)].To)
			}
		}
		if count != len(values) || len(got) > maxBuckets || got[0].Count == 0 || got[len(got)-1].Count == 0 {
			t.Fatalf("%d answers in %d bars: %v", count, len(got), got)
		}
	})
}

func TestTimelineCountsEveryRequestInItsInterval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := newTimeline()
		ends := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 200).Draw(t, "ns")
		var last time.Duration
		for i, at := range ends {
			last = max(last, time.Duration(at))
			line.add(time.Duration(at), time.Duration(i), true, i%3 != 0)
		}
		ok, failed := 0, 0
		for i, s := range line.result() {
			in, right := 0, 0
			var slowest, total time.Duration
			for n, at := range ends {
				if time.Duration(at)/line.width == time.Duration(i) {
					in++
					slowest, total = max(slowest, time.Duration(n)), total+time.Duration(n)
					if n%3 != 0 {
						right++
					}
				}
			}
			if s.OK != right || s.Failed != in-right || s.Max != slowest || in > 0 && s.Average != total/time.Duration(in) || s.Start != time.Duration(i)*line.width {
				t.Fatalf("slice %d is %+v; %d ended in it, %d right, slowest %v", i, s, in, right, slowest)
			}
			ok, failed = ok+s.OK, failed+s.Failed
		}
		if n := len(line.intervals); ok+failed != len(ends) || n > maxIntervals || last >= time.Duration(n)*line.width {
			t.Fatalf("%d of %d requests in %d slices of %v", ok+failed, len(ends), n, line.width)
		}
	})
}
