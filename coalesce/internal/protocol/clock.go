package protocol

import (
	"sync"
	"time"
)

// Clock tells what Redis' clock shows, or a bit less, by this process's own, monotonic
// clock. It goes on from the time that Redis told in the reply that was on its way for the
// shortest time, of those that came lately. The zero value does not know the time. Its
// methods may be called by several goroutines.
type Clock struct {
	mu   sync.Mutex
	told int64     // µs since 1970
	at   time.Time // when that reply was received
}

// drift is by how much two clocks may differ after d: NTP makes a clock faster or slower
// by 500 µs a second at the most.
func drift(d time.Duration) time.Duration { return d.Abs() / 1000 }

// Told notes that Redis told the time, in µs since 1970, in a reply that was received then,
// to a question that was sent then.
func (c *Clock) Told(told int64, sent, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// When Redis shows less than before, its clock was set back, or another server has
	// taken its place.
	if told >= c.noLater(received) || told < c.noLater(sent) {
		c.told, c.at = told, received
	}
}

// NoLater returns what Redis' clock shows at t, in µs since 1970, or a bit less; 0 when
// that is not known.
func (c *Clock) NoLater(t time.Time) uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return uint64(max(c.noLater(t), 0))
}

func (c *Clock) noLater(t time.Time) int64 {
	if c.told <= 0 {
		return 0
	}
	since := t.Sub(c.at)
	return c.told + (since - drift(since)).Microseconds()
}

// Moment is what Redis' clock showed at a moment, or after it.
type Moment struct {
	Redis int64 // µs since 1970
	Local time.Time
}

// LocalTime returns when, by this process's clock, Redis' clock showed that time, in µs
// since 1970, or a bit earlier.
func (m Moment) LocalTime(redis uint64) time.Time {
	since := time.Duration(int64(redis)-m.Redis) * time.Microsecond
	return m.Local.Add(since - drift(since))
}

// UnknownLag is what Since returns when it does not know.
const UnknownLag = time.Duration(-1)

// Since returns how long ago Redis' clock showed past, at the most. past is in µs since
// 1970, and 0 when it is not known. A time that seems to be in the future is now. Since
// returns UnknownLag when it knows one of the two times only, and when the answer would be
// longer than limit: no caller waits for so long, so one of the times must be wrong.
func (m Moment) Since(past uint64, limit time.Duration) time.Duration {
	if m.Redis <= 0 || past == 0 {
		return UnknownLag
	}
	now := uint64(max(m.Redis+time.Since(m.Local).Microseconds(), 0))
	switch {
	case past >= now:
		return 0
	case now-past > uint64(limit.Microseconds()):
		return UnknownLag
	}
	return time.Duration(now-past) * time.Microsecond
}
