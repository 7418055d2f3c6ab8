package timers

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// bell notes when its timer expired.
type bell struct {
	Timer
	mu   sync.Mutex
	rang []time.Time
}

func (b *bell) OnExpire(t *Timer) {
	if t != &b.Timer {
		panic("another owner's timer")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rang = append(b.rang, time.Now())
}

func TestEachTimerExpiresInTimeOrIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l List
		defer l.Close()
		begin := time.Now()
		const n = 1000
		bells := make([]bell, n)
		for round := range 3 { // a timer that has expired can be set again
			due := make([]time.Time, n)
			for i := range bells {
				due[i] = time.Now().Add(time.Duration(1+rand.IntN(1000)) * time.Millisecond) // one due now would expire before it is looked at
				l.Set(&bells[i].Timer, &bells[i], due[i])
			}
			if got := len(l.Owners()); got != n {
				t.Fatalf("%d timers are set, not %d", got, n)
			}
			if len(l.strays) == 0 || len(l.strays) == n {
				t.Errorf("%d of %d timers have one of their own", len(l.strays), n)
			}
			stopped := map[int]bool{}
			for _, i := range rand.Perm(n)[:n/2] {
				stopped[i] = true
				if !l.Stop(&bells[i].Timer) || l.Stop(&bells[i].Timer) {
					t.Error("Stop is to say true once")
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
					t.Fatalf("round %d: a timer expired %d times, not %d", round, len(rang), want)
				}
				if want == 1 && !rang[0].Equal(due[i]) {
					t.Errorf("a timer expired at %v, not %v", rang[0].Sub(begin), due[i].Sub(begin))
				}
				if l.Stop(&bells[i].Timer) {
					t.Error("a timer that has expired is still set")
				}
			}
			if l.first != nil || l.last != nil || len(l.strays) != 0 {
				t.Error("the list is not empty")
			}
		}
	})
}

// TestStoppedTimersLeaveTheRuntimesTimerAlone has thousands that are set and stopped
// in a row: the runtime's timer fires once in their time.
func TestStoppedTimersLeaveTheRuntimesTimerAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l List
		defer l.Close()
		var b bell
		armed := map[moment]bool{}
		for range 5000 {
			l.Set(&b.Timer, &b, time.Now().Add(time.Second))
			armed[l.due] = true
			l.Stop(&b.Timer)
			time.Sleep(time.Millisecond)
		}
		if len(armed) != 5 {
			t.Errorf("the timer was set %d times in five of the timers' times", len(armed))
		}
	})
}

// TestAStrayTimerIsStoppedAndSetAgain sets a timer far from the end of the list.
func TestAStrayTimerIsStoppedAndSetAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l List
		defer l.Close()
		others := make([]bell, 2*maxSteps)
		for i := range others {
			l.Set(&others[i].Timer, &others[i], time.Now().Add(time.Hour))
		}
		var stray bell
		for range 3 {
			l.Set(&stray.Timer, &stray, time.Now().Add(time.Second))
			if stray.own == nil {
				t.Fatal("it has no timer of its own")
			}
			if !l.Stop(&stray.Timer) {
				t.Error("it was not set")
			}
		}
		l.Set(&stray.Timer, &stray, time.Now().Add(2*time.Second))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(stray.rang) != 1 {
			t.Errorf("it expired %d times", len(stray.rang))
		}
	})
}

// TestATimerThatIsSetAgainExpiresOnce has timers whose deadlines are moved while they are
// set, in the list and out of it.
func TestATimerThatIsSetAgainExpiresOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l List
		defer l.Close()
		const n = 100
		bells := make([]bell, n)
		due := make([]time.Time, n)
		for range 3 {
			for i := range bells {
				due[i] = time.Now().Add(time.Duration(1+rand.IntN(1000)) * time.Millisecond)
				l.Set(&bells[i].Timer, &bells[i], due[i])
			}
		}
		if got := len(l.Owners()); got != n {
			t.Errorf("%d timers are set, not %d", got, n)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i := range bells {
			if rang := bells[i].rang; len(rang) != 1 || !rang[0].Equal(due[i]) {
				t.Errorf("expired at %v, not at %v", rang, due[i])
			}
		}
	})
}
