package distributed

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bell notes when its alarm went off.
type bell struct {
	alarm
	mu   sync.Mutex
	rang []time.Time
}

func (b *bell) rings(a *alarm) {
	if a != &b.alarm {
		panic("another one's alarm")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rang = append(b.rang, time.Now())
}

func TestEachAlarmGoesOffAtItsTimeOrIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l alarms
		defer l.close()
		begin := time.Now()
		const n = 1000
		bells := make([]bell, n)
		for round := range 3 { // one that went off can be set again
			due := make([]time.Time, n)
			for i := range bells {
				due[i] = time.Now().Add(time.Duration(rand.IntN(1000)) * time.Millisecond)
				l.set(&bells[i].alarm, &bells[i], due[i])
			}
			if got := len(l.owners()); got != n {
				t.Fatalf("%d alarms are set, not %d", got, n)
			}
			stopped := map[int]bool{}
			for _, i := range rand.Perm(n)[:n/2] {
				stopped[i] = true
				if !l.stop(&bells[i].alarm) || l.stop(&bells[i].alarm) {
					t.Error("stop is to say true once")
				}
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			for i := range bells {
				want := 1
				if stopped[i] {
					want = 0
				}
				rang := bells[i].rang
				bells[i].rang = nil
				if len(rang) != want {
					t.Fatalf("round %d: an alarm went off %d times, not %d", round, len(rang), want)
				}
				if want == 1 && !rang[0].Equal(due[i]) {
					t.Errorf("an alarm went off at %v, not %v", rang[0].Sub(begin), due[i].Sub(begin))
				}
				if l.stop(&bells[i].alarm) {
					t.Error("an alarm that went off is still set")
				}
			}
			if l.first != nil || l.last != nil {
				t.Error("the list is not empty")
			}
		}
	})
}

// TestAlarmsThatAreStoppedLeaveTheTimerAlone has thousands that are set and stopped
// in a row: the timer goes off once in their time.
func TestAlarmsThatAreStoppedLeaveTheTimerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l alarms
		defer l.close()
		var b bell
		armed := map[moment]bool{}
		for range 5000 {
			l.set(&b.alarm, &b, time.Now().Add(time.Second))
			armed[l.due] = true
			l.stop(&b.alarm)
			time.Sleep(time.Millisecond)
		}
		if len(armed) != 5 {
			t.Errorf("the timer was set %d times in five of the alarms' times", len(armed))
		}
	})
}
