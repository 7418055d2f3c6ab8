package redislink

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// lookedAfter sends a command that nothing answers, and has each look come as late as
// lateness says of its number, from 0 on. It returns how long the command was waited for.
func lookedAfter(t *testing.T, lateness func(look int) time.Duration) (waited time.Duration) {
	answer, begun, release := hold()
	l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) {
		if isProbe(trip[0]) {
			succeed(trip) // its own looks are in time
		} else {
			answer(trip)
		}
	})
	began := time.Now()
	r := send(l, join("k"))
	<-begun
	for look := 0; !r.taken(); look++ {
		if look == 10*looks {
			t.Fatal("it is waited for as long as looks come late")
		}
		synctest.Wait()
		l.pending.Stop(&r.timer)
		time.Sleep(max(0, time.Until(r.next.Add(lateness(look)))))
		r.OnExpire(&r.timer)
	}
	waited = time.Since(began)
	release()
	l.Close()
	return waited
}

// TestLooksThatAreALittleLateCostLittle has a process whose goroutines wait for their turn,
// as where there are fewer processors than busy processes.
func TestLooksThatAreALittleLateCostLittle(t *testing.T) {
	const every = timeout / looks
	for name, c := range map[string]struct {
		late time.Duration
		most time.Duration
	}{
		"not late":                       {0, timeout},
		"by less than half an interval":  {every * 4 / 10, timeout + every*8/10},
		"by more than half an interval":  {every * 6 / 10, timeout + every*28/10},
		"by two intervals, and each one": {heldUpFor * every, timeout + 7*every},
	} {
		synctest.Test(t, func(t *testing.T) {
			waited := lookedAfter(t, func(int) time.Duration { return c.late })
			if waited < timeout || waited > c.most {
				t.Errorf("%s: the command was waited for for %v, want at most %v", name, waited, c.most)
			}
		})
	}
}

// TestTimeThatThisProcessWasHeldUpDoesNotCount has it stopped for ten times the timeout,
// before each of the looks.
func TestTimeThatThisProcessWasHeldUpDoesNotCount(t *testing.T) {
	const stopped = 10 * timeout
	for at := range looks {
		synctest.Test(t, func(t *testing.T) {
			waited := lookedAfter(t, func(look int) time.Duration {
				if look == at {
					return stopped
				}
				return 0
			})
			least := timeout
			if at == looks-1 { // it decides, and what was sent to this process is not read yet
				least += timeout / looks
			}
			if running := waited - stopped; running < least || running > timeout+timeout/looks {
				t.Errorf("stopped at look %d: it was waited for for %v beside that", at, running)
			}
		})
	}
}

// TestAProcessThatIsHeldUpAllTheTimeTellsInTheEnd has every look come late, by more than the
// timeout.
func TestAProcessThatIsHeldUpAllTheTimeTellsInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		looked := 0
		waited := lookedAfter(t, func(look int) time.Duration { looked = look + 1; return 2 * timeout })
		if looked != looks+maxHeldUp {
			t.Errorf("after %d looks, in %v", looked, waited)
		}
	})
}
