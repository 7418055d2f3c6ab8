package protocol

import "time"

// Clock tells what Redis' clock shows. It goes on from a time that Redis told, by this
// process's own, monotonic clock. It is wrong by half the round trip in which Redis told
// the time, at most, unless Redis' clock is set meanwhile. The zero value does not know
// the time.
type Clock struct {
	told int64     // µs since 1970
	when time.Time // the middle of the round trip
}

// NewClock returns the clock of a Redis that told the time, in µs since 1970, in a round
// trip that began and ended then.
func NewClock(told int64, sent, received time.Time) Clock {
	return Clock{told, sent.Add(received.Sub(sent) / 2)}
}

// At returns what Redis' clock shows at t, in µs since 1970; 0 when that is not known.
func (c Clock) At(t time.Time) uint64 {
	if c.told <= 0 {
		return 0
	}
	return uint64(max(c.told+t.Sub(c.when).Microseconds(), 0))
}

// UnknownLag is what Since returns when it does not know.
const UnknownLag = time.Duration(-1)

// Since returns how long ago Redis' clock showed past, which is in µs since 1970 and 0
// when it is not known. A time that seems to be in the future is now. Since returns
// UnknownLag when it knows one of the two times only, and when the answer would be longer
// than limit: no caller waits for so long, so one of the times must be wrong.
func (c Clock) Since(past uint64, limit time.Duration) time.Duration {
	now := c.At(time.Now())
	switch {
	case now == 0 || past == 0:
		return UnknownLag
	case past >= now:
		return 0
	case now-past > uint64(limit.Microseconds()):
		return UnknownLag
	}
	return time.Duration(now-past) * time.Microsecond
}
