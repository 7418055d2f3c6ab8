package protocol

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestAClockGoesOnFromTheMiddleOfItsRoundTrip(t *testing.T) {
	sent := time.Now()
	c := NewClock(1_000_000, sent, sent.Add(2*time.Second))
	for after, want := range map[time.Duration]uint64{
		time.Second: 1_000_000, 2 * time.Second: 2_000_000, time.Second + 1500*time.Nanosecond: 1_000_001,
		0: 0, -time.Hour: 0, // before 1970
	} {
		if got := c.At(sent.Add(after)); got != want {
			t.Errorf("%v after it was sent, it is %d µs, not %d", after, got, want)
		}
	}
}

func TestAClockThatWasToldNothingKnowsNothing(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]Clock{"the zero value": {}, "told 0": NewClock(0, now, now), "told less than 0": NewClock(-5, now, now)} {
		if at := c.At(now); at != 0 {
			t.Errorf("%s: it is %d", name, at)
		}
		if lag := c.Since(1, time.Hour); lag != UnknownLag {
			t.Errorf("%s: a lag is %v", name, lag)
		}
	}
}

func TestSinceIsBetweenNothingAndTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const told = 1_700_000_000_000_000
		c := NewClock(told, time.Now(), time.Now())
		time.Sleep(time.Minute)
		now := uint64(told + time.Minute.Microseconds())
		for name, lag := range map[string]struct {
			past uint64
			want time.Duration
		}{
			"a second ago":          {now - 1_000_000, time.Second},
			"as long as the limit":  {now - 10_000_000, 10 * time.Second},
			"longer than the limit": {now - 10_000_001, UnknownLag},
			"now":                   {now, 0},
			"in the future":         {now + 1, 0},
			"at the end of time":    {1<<64 - 1, 0},
			"not known":             {0, UnknownLag},
		} {
			if got := c.Since(lag.past, 10*time.Second); got != lag.want {
				t.Errorf("%s: %v, not %v", name, got, lag.want)
			}
		}
	})
}
