package distributed

import (
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
)

// TestWhenAFollowerLooks plays what a subscription may say, one after the other. Times are
// seconds after the beginning; the lease TTL is 30 s, and the Redis timeout 1 s.
func TestWhenAFollowerLooks(t *testing.T) {
	f := &Fleet{}
	f.set.redisTimeout = time.Second
	c := &call[int]{g: &Group[int]{core: &core[int]{fleet: f}}}
	c.g.set.leaseTTL = 30 * time.Second
	began := time.Now()
	at := func(second int) time.Time { return began.Add(time.Duration(second) * time.Second) }
	s := &following[int]{looks: looks{due: at(20)}}
	for _, step := range []struct {
		says   string
		second int
		news   pubsub.News
		from   int // it looks then, or up to a millisecond later
		until  int // or at any time until then
	}{
		{"it is not confirmed yet", 0, pubsub.News{}, 1, 1},
		{"nothing new, which does not put it off", 1, pubsub.News{}, 1, 1},
		{"it is confirmed for the first time", 1, pubsub.News{Confirmed: true, Missed: true}, 1, 1},
		{"the flight lives: it has missed nothing", 2, pubsub.News{Confirmed: true, Alive: true, Until: at(25)}, 25, 25},
		{"an older sign of life", 3, pubsub.News{Confirmed: true, Alive: true, Until: at(22)}, 25, 25},
		{"a lease that lasts for longer than any", 4, pubsub.News{Confirmed: true, Alive: true, Until: at(3600)}, 34, 34},
		{"the connection is lost", 10, pubsub.News{}, 11, 11},
		{"it is confirmed again, as many others are", 10, pubsub.News{Confirmed: true, Missed: true, Spread: 5 * time.Second}, 10, 15},
		{"the flight lives", 10, pubsub.News{Confirmed: true, Alive: true, Until: at(40)}, 40, 40},
		{"both at once: the sign came after the loss", 11, pubsub.News{Confirmed: true, Missed: true, Alive: true, Until: at(41)}, 41, 41},
	} {
		s.heed(c, step.news, at(step.second))
		if next := s.looks.next(); next.Before(at(step.from)) || next.After(at(step.until).Add(time.Millisecond)) {
			t.Errorf("%s: it looks after %v, not %d to %d s", step.says, next.Sub(began), step.from, step.until)
		}
	}
}
