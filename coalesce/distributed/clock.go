package distributed

import "time"

// redisClock tells the time of Redis' clock from one that it told and this
// process's own, monotonic clock. It is right by half the round trip in which
// Redis told it, if Redis' clock is not set meanwhile. The zero value knows
// nothing.
type redisClock struct {
	told int64     // µs since 1970
	when time.Time // the middle of the round trip
}

func newRedisClock(told int64, sent, received time.Time) redisClock {
	return redisClock{told, sent.Add(received.Sub(sent) / 2)}
}

// at returns the time of Redis' clock at t, in µs; 0 when it is not known.
func (c redisClock) at(t time.Time) uint64 {
	if c.told <= 0 {
		return 0
	}
	return uint64(max(c.told+t.Sub(c.when).Microseconds(), 0))
}

const unknownLag = -1

// since returns how long ago Redis' clock had the time past, in µs. What seems
// to be yet to come was now. It is unknownLag when a clock is not known, or it is
// longer ago than limit: nobody waits for so long.
func (c redisClock) since(past uint64, limit time.Duration) time.Duration {
	now := c.at(time.Now())
	switch {
	case now == 0 || past == 0:
		return unknownLag
	case past >= now:
		return 0
	case now-past > uint64(limit.Microseconds()):
		return unknownLag
	}
	return time.Duration(now-past) * time.Microsecond
}
