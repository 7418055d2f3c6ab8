package protocol

import (
	"testing"
	"testing/synctest"
	"time"
)

// clockAt returns a clock that was told the time in a reply that took no time.
func clockAt(told int64, at time.Time) *Clock {
	c := new(Clock)
	c.Told(told, at, at)
	return c
}

func TestWhatAClockShowsIsNeverLaterThanTheTruth(t *testing.T) {
	received := time.Now()
	c := clockAt(1_000_000, received)
	for after, want := range map[time.Duration]uint64{
		0: 1_000_000, time.Second: 1_999_000, 1500 * time.Nanosecond: 1_000_001, -500 * time.Millisecond: 499_500,
		-time.Hour: 0, // before 1970
	} {
		if got := c.NoLater(received.Add(after)); got != want {
			t.Errorf("%v after the reply, it is %d µs, not %d", after, got, want)
		}
	}
}

func TestAClockGoesByTheReplyThatWasTheFastest(t *testing.T) {
	const second = 1_000_000
	begin := time.Now() // when Redis' clock shows 0
	after := func(d time.Duration) time.Time { return begin.Add(d) }
	for name, tt := range map[string]struct {
		told           int64
		sent, received time.Duration
		want           uint64 // three seconds after the beginning
	}{
		"a faster one": {2 * second, 2 * time.Second, 2*time.Second + time.Millisecond, 3*second - 1_999},
		"a slower one": {2 * second, 2 * time.Second, 2*time.Second + 20*time.Millisecond, 3*second - 11_990},
		"a slower one, but the other was long ago": {62 * second, 62 * time.Second, 62*time.Second + 20*time.Millisecond, 3*second - 79_020},
		"one of a clock that was set back":         {second, 2 * time.Second, 2*time.Second + time.Millisecond, 2*second - 1_999},
		"one of a clock that was set forward":      {9 * second, 2 * time.Second, 2*time.Second + time.Millisecond, 10*second - 1_999},
	} {
		t.Run(name, func(t *testing.T) {
			c := new(Clock)
			c.Told(second, after(time.Second), after(time.Second+10*time.Millisecond))
			c.Told(tt.told, after(tt.sent), after(tt.received))
			if got := c.NoLater(after(3 * time.Second)); got != tt.want {
				t.Errorf("it is %d µs, not %d", got, tt.want)
			}
		})
	}
}

func TestALocalTimeIsNeverLaterThanTheTruth(t *testing.T) {
	sent := time.Now()
	m := Moment{1_000_000, sent}
	for redis, want := range map[uint64]time.Duration{1_000_000: 0, 2_000_000: 999 * time.Millisecond, 0: -1001 * time.Millisecond} {
		if got := m.LocalTime(redis).Sub(sent); got != want {
			t.Errorf("when it was %d µs, it was %v after the question, not %v", redis, got, want)
		}
	}
}

func TestAClockThatWasToldNothingKnowsNothing(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]*Clock{"the zero value": {}, "told 0": clockAt(0, now), "told less than 0": clockAt(-5, now)} {
		if at := c.NoLater(now); at != 0 {
			t.Errorf("%s: it is %d", name, at)
		}
	}
	for name, m := range map[string]Moment{"the zero value": {}, "told 0": {0, now}, "told less than 0": {-5, now}} {
		if lag := m.Since(1, time.Hour); lag != UnknownLag {
			t.Errorf("%s: a lag is %v", name, lag)
		}
	}
}

func TestSinceIsBetweenNothingAndTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const told = 1_700_000_000_000_000
		c := Moment{told, time.Now()}
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
