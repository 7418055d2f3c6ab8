package redislink

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// TestCloseWaitsForTheProbeThatIsUnderWay has one that nothing answers.
func TestCloseWaitsForTheProbeThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, begun, release := hold()
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
			if trip[0].Args()[3] == lease("k") {
				fail(trip)
			} else {
				answer(trip)
			}
		})
		breakIt(t, l)
		<-begun // the probe
		closed := make(chan struct{})
		go func() {
			l.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the probe")
		default:
		}
		release()
		<-closed
		if len(fake.keys()) != 2 {
			t.Errorf("sent: %q", fake.keys())
		}
	})
}

// TestNoProbeBeginsAfterClose closes a link whose probe's time is yet to come, and
// one whose probe fails.
func TestNoProbeBeginsAfterClose(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, _ *health) {
		breakIt(t, l)
		l.Close()
		time.Sleep(10 * probeAfter)
		l.probe() // its timer had fired before Close stopped it
		if keys := fake.keys(); len(keys) != 1 {
			t.Errorf("sent: %q", keys)
		}
	})
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, _ *health) {
		breakIt(t, l)
		l.Close()
		l.probeLater()
		if l.probes.Stop() {
			t.Error("a failure of which the link hears late sets the timer of a probe")
		}
		time.Sleep(10 * probeAfter)
		if keys := fake.keys(); len(keys) != 1 {
			t.Errorf("sent: %q", keys)
		}
	})
}

// survivor recovers as a Fleet does: Config gets its method survive.
type survivor struct {
	mu     sync.Mutex
	values []any
}

func (s *survivor) survive() {
	value := recover()
	if value == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values = append(s.values, value)
}

// TestAHookThatPanicsBesideAllCallsIsSurvived has OnChange panic, and OnCommand for
// the probe: both have no caller. Recover works in a deferred method value, too. The
// breaker does its work all the same.
func TestAHookThatPanicsBesideAllCallsIsSurvived(t *testing.T) {
	var s survivor
	config := Config{
		OnChange: func(_, to State, _ error) {
			if to == HalfOpen {
				runtime.Goexit() // as a failing test's hook does
			}
			panic(to)
		},
		OnCommand: func(step string, _ time.Duration, _ string) {
			if step == "probe" {
				panic(step)
			}
		},
		Survive: s.survive,
	}
	inBubble(t, config, func(t *testing.T, l *Link, _ *fakeRedis, redis *health) {
		breakIt(t, l)
		redis.set(false)
		time.Sleep(probeAfter)
		synctest.Wait()
		wantState(t, l, Closed)
		synctest.Wait()
		for _, want := range []any{Open, Closed, "probe"} {
			if i := slices.Index(s.values, want); i < 0 {
				t.Errorf("the panic %v was not survived: %v", want, s.values)
			}
		}
		if len(s.values) != 3 {
			t.Errorf("survived: %v", s.values)
		}
	})
}
