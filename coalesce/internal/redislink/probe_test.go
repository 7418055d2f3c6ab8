package redislink

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// takeDown has one command refused.
func takeDown(t *testing.T, l *Link, redis *trouble) {
	t.Helper()
	redis.refuse(errRefused)
	if _, err := l.Do(context.Background(), join("k")); FailureKind(err) != "connection" {
		t.Fatalf("the command's error is %v", err)
	}
	wantUp(t, l, false)
}

func TestAServerIsUpWhenAProbeIsAnswered(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, redis *trouble) {
		takeDown(t, l, redis)
		if n := fake.probes(); n != 1 {
			t.Errorf("%d probes were sent at once", n)
		}
		time.Sleep(10 * time.Second)
		wantUp(t, l, false)
		if n := fake.probes(); n < 80 || n > 135 {
			t.Errorf("%d probes were sent in 10 s", n)
		}
		if n := len(fake.keys()); n != 1 {
			t.Errorf("%d commands were sent", n)
		}
		redis.refuse(nil)
		time.Sleep(probeEvery * 5 / 4)
		wantUp(t, l, true)
		probes := fake.probes()
		time.Sleep(time.Minute)
		if n := fake.probes() - probes; n != 0 {
			t.Errorf("%d probes were sent to a server that is up", n)
		}
	})
}

// TestFewProbesAreUnderWayAtATime freezes the server, and has the client keep what was sent
// for longer than the timeout.
func TestFewProbesAreUnderWayAtATime(t *testing.T) {
	inBubble(t, Config{Timeout: time.Second}, func(t *testing.T, l *Link, fake *fakeRedis, redis *trouble) {
		thaw := redis.freeze()
		<-send(l, join("k")).answered
		wantUp(t, l, false)
		time.Sleep(2 * time.Second)
		if n := fake.probes(); n != maxProbes {
			t.Errorf("%d probes were sent", n)
		}
		time.Sleep(10 * stuckAfter)
		if n := fake.probes(); n < 10 || n > maxProbes+11 {
			t.Errorf("%d probes were sent to a server that keeps them", n)
		}
		thaw()
		wantUp(t, l, true)
	})
}

// TestAProbeThatIsAnsweredLateCounts has each take twice the timeout.
func TestAProbeThatIsAnsweredLateCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newLink(t, Config{Timeout: time.Second}, func(trip []*redis.Cmd) {
			if isProbe(trip[0]) {
				time.Sleep(2 * time.Second)
				succeed(trip)
			} else {
				trip[0].SetErr(errRefused)
			}
		})
		_, _ = l.Do(context.Background(), join("k"))
		wantUp(t, l, false)
		time.Sleep(2 * time.Second)
		wantUp(t, l, true)
		if n := fake.probes(); n != maxProbes {
			t.Errorf("%d probes were sent", n)
		}
		time.Sleep(time.Second)
		l.Close()
	})
}

// TestAReplyThatComesLateHastensAProbe has a command's come before any probe's.
func TestAReplyThatComesLateHastensAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		probes, slow := make(chan struct{}), make(chan struct{})
		fast := false
		l, fake := newLink(t, Config{Timeout: time.Second}, func(trip []*redis.Cmd) {
			mu.Lock()
			wait := probes
			if fast {
				wait = nil
			}
			mu.Unlock()
			if !isProbe(trip[0]) {
				wait = slow
			}
			if wait != nil {
				<-wait
			}
			succeed(trip)
		})
		<-send(l, join("k")).answered
		wantUp(t, l, false)
		time.Sleep(time.Second)
		mu.Lock()
		fast = true
		mu.Unlock()
		l.only.mu.Lock()
		l.only.probes, l.only.lastProbe = 0, time.Now() // the client has none
		l.only.nextProbe.Reset(time.Hour)
		l.only.mu.Unlock()
		before := fake.probes()
		close(slow)
		wantUp(t, l, true)
		if n := fake.probes() - before; n != 1 {
			t.Errorf("%d probes were sent", n)
		}
		close(probes)
		l.Close()
	})
}

// TestAnEndFromBeforeAChangeSaysNothing has a command refused late, when the server has
// been down and is up again.
func TestAnEndFromBeforeAChangeSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all told
		redis, late := &trouble{}, make(chan struct{})
		l, _ := newLink(t, Config{OnChange: all.onChange}, lateAnswer(late, redis))
		send(l, join("late"))
		synctest.Wait()
		takeDown(t, l, redis)
		redis.refuse(nil)
		time.Sleep(2 * probeEvery)
		wantUp(t, l, true)
		close(late)
		wantUp(t, l, true)
		if !slices.Equal(all.downs, []bool{true, false}) {
			t.Errorf("it went down: %v", all.downs)
		}
		l.Close()
	})
}

func lateAnswer(late chan struct{}, others *trouble) func(trip []*redis.Cmd) {
	return func(trip []*redis.Cmd) {
		if trip[0].Args()[3] == lease("late") {
			<-late
			trip[0].SetErr(errRefused)
			return
		}
		others.answer(trip)
	}
}

func TestThoseWhoWaitForAServerAreCalledWhenItIsUp(t *testing.T) {
	var ups int
	inBubble(t, Config{OnUp: func() { ups++ }}, func(t *testing.T, l *Link, _ *fakeRedis, redis *trouble) {
		called := 0
		l.WhenUp("k", func() { called++ })
		if called != 1 {
			t.Error("the server is up, and what waits for that is not called")
		}
		down := l.Down("k")
		takeDown(t, l, redis)
		select {
		case <-down:
		default:
			t.Error("those who wait for the server are not told that it is down")
		}
		for range 3 {
			l.WhenUp("k", func() { called++ })
		}
		time.Sleep(time.Second)
		if called != 1 || ups != 0 {
			t.Error("what waits for the server is called while it is down")
		}
		redis.refuse(nil)
		time.Sleep(time.Second)
		wantUp(t, l, true)
		if called != 4 || ups != 1 {
			t.Errorf("%d were called, and OnUp %d times", called, ups)
		}
		select {
		case <-l.Down("k"):
			t.Error("it is up, and said to be down")
		default:
		}
	})
}

// TestCloseWaitsForTheProbeThatIsUnderWay has one that nothing answers.
func TestCloseWaitsForTheProbeThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, begun, release := hold()
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
			if isProbe(trip[0]) {
				answer(trip)
			} else {
				trip[0].SetErr(errRefused)
			}
		})
		_, _ = l.Do(context.Background(), join("k"))
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
		probes := fake.probes()
		time.Sleep(time.Minute)
		l.only.probe() // its timer had fired before Close stopped it
		synctest.Wait()
		if n := fake.probes() - probes; n != 0 {
			t.Errorf("%d probes were sent after Close", n)
		}
	})
}

// told notes what OnChange is told.
type told struct {
	mu    sync.Mutex
	downs []bool
}

func (c *told) onChange(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.downs = append(c.downs, change.Down)
}

// TestChangesAreToldInOrder has the server change faster than OnChange returns: a hook must
// not believe that the last state is an earlier one.
func TestChangesAreToldInOrder(t *testing.T) {
	var all told
	slow := func(change Change) {
		time.Sleep(10 * time.Second)
		if FailureKind(change.Why) != "connection" || change.Address == "" || change.After < 0 {
			t.Errorf("told: %+v", change)
		}
		all.onChange(change)
	}
	inBubble(t, Config{OnChange: slow}, func(t *testing.T, l *Link, _ *fakeRedis, redis *trouble) {
		const rounds = 20
		for range rounds {
			takeDown(t, l, redis)
			redis.refuse(nil)
			time.Sleep(2 * probeEvery)
			wantUp(t, l, true)
		}
		time.Sleep(2 * rounds * 10 * time.Second)
		synctest.Wait()
		for i, down := range all.downs {
			if down != (i%2 == 0) {
				t.Fatalf("change %d: down is %v", i, down)
			}
		}
		if len(all.downs) != 2*rounds {
			t.Errorf("%d changes were told, not %d", len(all.downs), 2*rounds)
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
// server is judged all the same.
func TestAHookThatPanicsBesideAllCallsIsSurvived(t *testing.T) {
	var s survivor
	config := Config{
		OnChange: func(change Change) {
			if change.Down {
				runtime.Goexit() // as a failing test's hook does
			}
			panic("up")
		},
		OnCommand: func(step string, _ time.Duration, kind string) {
			if step == "probe" && kind == "" {
				panic(step)
			}
		},
		Survive: s.survive,
	}
	inBubble(t, config, func(t *testing.T, l *Link, _ *fakeRedis, redis *trouble) {
		takeDown(t, l, redis)
		redis.refuse(nil)
		time.Sleep(2 * probeEvery)
		wantUp(t, l, true)
		for _, want := range []any{"up", "probe"} {
			if !slices.Contains(s.values, want) {
				t.Errorf("the panic %v was not survived: %v", want, s.values)
			}
		}
		if len(s.values) != 2 {
			t.Errorf("survived: %v", s.values)
		}
	})
}

// TestADoubtIsSettledByAProbe has a connection beside the link's own lost: once because the
// server hangs, and once because it does not.
func TestADoubtIsSettledByAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		hangs := false
		l, fake := newLink(t, Config{Timeout: time.Second}, func(trip []*redis.Cmd) {
			if hangs {
				answer(trip)
			} else {
				succeed(trip)
			}
		})
		for range 3 {
			l.Doubt("")
		}
		time.Sleep(2 * time.Second)
		wantUp(t, l, true)
		if n := fake.probes(); n < 1 || n > 3 {
			t.Errorf("%d probes", n)
		}
		hangs = true
		l.Doubt("")
		time.Sleep(2 * time.Second)
		wantUp(t, l, false)
		hangs = false
		release()
		l.Close()
	})
}
