package redislink

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
)

// health is a fake's, for a test to change.
type health struct {
	mu   sync.Mutex
	down bool
}

func (h *health) set(down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down = down
}

func (h *health) answer(trip []*redis.Cmd) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.down {
		fail(trip)
	} else {
		succeed(trip)
	}
}

// inBubble runs a test of a link whose Redis is down at first. What it waits for
// takes no time.
func inBubble(t *testing.T, config Config, test func(t *testing.T, l *Link, fake *fakeRedis, redis *health)) {
	synctest.Test(t, func(t *testing.T) {
		h := &health{down: true}
		l, fake := newLink(t, config, h.answer)
		test(t, l, fake, h)
		l.Close()
	})
}

// breakIt has one command fail.
func breakIt(t *testing.T, l *Link) {
	t.Helper()
	if _, err := l.Do(context.Background(), join("k")); !errors.Is(err, errNetwork) || !errors.Is(err, coalesce.ErrUnavailable) {
		t.Fatalf("the command's error is %v", err)
	}
	wantState(t, l, Open)
}

func wantState(t *testing.T, l *Link, want State) {
	t.Helper()
	if got := l.State(); got != want {
		t.Fatalf("the breaker is %s, not %s", got, want)
	}
}

func ask(t *testing.T, l *Link) Permit {
	t.Helper()
	permit, err := l.Ask()
	if err != nil {
		t.Fatalf("a caller is refused: %v", err)
	}
	return permit
}

func wantRefused(t *testing.T, l *Link) {
	t.Helper()
	if _, err := l.Ask(); !errors.Is(err, ErrBreakerOpen) || !errors.Is(err, coalesce.ErrUnavailable) || !NeverSent(err) {
		t.Fatalf("a caller is told %v", err)
	}
}

func TestOneFailureKeepsCallersFromRedisForAWindow(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		wantState(t, l, Closed)
		ask(t, l)
		breakIt(t, l)
		wantRefused(t, l)
		time.Sleep(window - 1)
		wantState(t, l, Open)
		wantRefused(t, l)
		time.Sleep(time.Nanosecond)
		wantState(t, l, HalfOpen)
	})
}

func TestAHalfOpenBreakerLetsOneTryAtATime(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		breakIt(t, l)
		time.Sleep(window)
		try := ask(t, l)
		wantRefused(t, l)
		wantState(t, l, HalfOpen)
		try(errNetwork)
		wantState(t, l, Open)
		wantRefused(t, l)
		time.Sleep(window)
		try = ask(t, l)
		wantRefused(t, l)
		try(nil)
		wantState(t, l, Closed)
		ask(t, l)
		ask(t, l)
	})
}

// TestATryOfWhichNothingIsHeardIsNotWaitedForForever loses a permit, as a panic of its
// caller's does. Redis stays down, so that no probe closes the breaker.
func TestATryOfWhichNothingIsHeardIsNotWaitedForForever(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		breakIt(t, l)
		time.Sleep(window)
		ask(t, l)
		time.Sleep(tryLimit - 1)
		wantState(t, l, HalfOpen)
		wantRefused(t, l)
		time.Sleep(time.Nanosecond)
		try := ask(t, l)
		wantRefused(t, l)
		try(nil)
		wantState(t, l, Closed)
	})
}

// TestACommandThatWasNotSentSaysNothingOfRedis has commands that waited for their turn
// for their whole time.
func TestACommandThatWasNotSentSaysNothingOfRedis(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		ask(t, l)(errNotSent)
		wantState(t, l, Closed)
		breakIt(t, l)
		time.Sleep(window)
		try := ask(t, l)
		wantRefused(t, l)
		try(errNotSent)
		wantState(t, l, HalfOpen)
		ask(t, l)(nil) // another caller may try
		wantState(t, l, Closed)
	})
}

// TestAResultFromBeforeAChangeSaysNothing has commands that were asked for in each
// state answered in a later one.
func TestAResultFromBeforeAChangeSaysNothing(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		good, bad := ask(t, l), ask(t, l)
		breakIt(t, l)
		time.Sleep(window / 2)
		bad(errNetwork) // does not make the window longer
		time.Sleep(window / 2)
		wantState(t, l, HalfOpen)
		good(nil)
		wantState(t, l, HalfOpen)
		bad(errNetwork)
		wantState(t, l, HalfOpen)

		ask(t, l)(nil)
		wantState(t, l, Closed)
		bad(errNetwork)
		wantState(t, l, Closed)
	})
}

func TestWhatMustBeSentIsATryOnlyWhereOneIsAllowed(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, redis *health) {
		breakIt(t, l)
		redis.set(false)
		if _, err := l.Do(context.Background(), join("in spite of it")); err != nil {
			t.Errorf("it was not sent: %v", err)
		}
		wantState(t, l, Open) // the failure may have been another server's
		time.Sleep(window)
		try := l.Must()
		wantRefused(t, l)
		l.Must()(errNetwork)
		wantState(t, l, HalfOpen)
		try(nil)
		wantState(t, l, Closed)
		if !slices.Contains(fake.keys(), lease("in spite of it")) {
			t.Errorf("sent: %q", fake.keys())
		}
	})
}

func TestAProbeClosesTheBreakerThoughNobodyCalls(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, redis *health) {
		breakIt(t, l)
		redis.set(false)
		time.Sleep(probeAfter - 1)
		synctest.Wait()
		if keys := fake.keys(); len(keys) != 1 {
			t.Errorf("sent too soon: %q", keys)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if l.breaker.state != Closed { // State would let time have its effect
			t.Errorf("the breaker is %s", l.breaker.state)
		}
		if keys := fake.keys(); !slices.Equal(keys, []string{lease("k"), "ns:probe"}) {
			t.Errorf("sent: %q", keys)
		}
		time.Sleep(10 * probeAfter)
		if keys := fake.keys(); len(keys) != 2 {
			t.Errorf("sent to a Redis that is well: %q", keys)
		}
	})
}

func TestAFailedProbeLeavesTheTryToCallers(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, redis *health) {
		breakIt(t, l)
		for probes := 1; probes <= 3; probes++ {
			time.Sleep(probeAfter)
			synctest.Wait()
			wantState(t, l, HalfOpen)
			if keys := fake.keys(); len(keys) != 1+probes {
				t.Fatalf("after %d times: sent %q", probes, keys)
			}
		}
		try := ask(t, l)
		redis.set(false)
		time.Sleep(probeAfter)
		synctest.Wait()
		wantState(t, l, HalfOpen) // the caller's own try decides
		try(nil)
		wantState(t, l, Closed)
	})
}

// TestNoProbeIsSentWhereACallerHasTried has one close the breaker, and one open it
// anew: the probe then waits for its time from there.
func TestNoProbeIsSentWhereACallerHasTried(t *testing.T) {
	inBubble(t, Config{}, func(t *testing.T, l *Link, fake *fakeRedis, _ *health) {
		breakIt(t, l)
		time.Sleep(window)
		ask(t, l)(nil)
		time.Sleep(probeAfter)
		synctest.Wait()
		if keys := fake.keys(); len(keys) != 1 {
			t.Errorf("sent after a caller's success: %q", keys)
		}
		breakIt(t, l)
		time.Sleep(probeAfter - 1)
		ask(t, l)(errNetwork)
		time.Sleep(probeAfter - 1)
		synctest.Wait()
		if keys := fake.keys(); len(keys) != 2 {
			t.Errorf("sent after a caller's failure: %q", keys)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if keys := fake.keys(); len(keys) != 3 {
			t.Errorf("sent when its time had come: %q", keys)
		}
	})
}

// changes notes what OnChange and OnOpen are told.
type changes struct {
	mu    sync.Mutex
	all   [][2]State
	opens int
}

func (c *changes) onChange(from, to State, _ error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, [2]State{from, to})
}

func (c *changes) onOpen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opens++
}

func TestEachChangeIsToldOnceAndInOrder(t *testing.T) {
	var told changes
	inBubble(t, Config{OnChange: told.onChange, OnOpen: told.onOpen}, func(t *testing.T, l *Link, _ *fakeRedis, _ *health) {
		for range 3 { // nothing changes
			ask(t, l)(nil)
		}
		breakIt(t, l)
		time.Sleep(window)
		for range 3 {
			l.State()
		}
		ask(t, l)(errNetwork)
		time.Sleep(window)
		ask(t, l)(nil)
		synctest.Wait()
		want := [][2]State{{Closed, Open}, {Open, HalfOpen}, {HalfOpen, Open}, {Open, HalfOpen}, {HalfOpen, Closed}}
		if !slices.Equal(told.all, want) || told.opens != 2 {
			t.Errorf("told: %v, and %d times that it opened", told.all, told.opens)
		}
	})
}

// TestChangesInARowAreToldInOrder closes and opens the breaker faster than OnChange
// returns, which must not make a hook believe that the last state is an earlier one.
func TestChangesInARowAreToldInOrder(t *testing.T) {
	var told changes
	slow := func(from, to State, _ error) {
		time.Sleep(10 * probeAfter)
		told.onChange(from, to, nil)
	}
	inBubble(t, Config{OnChange: slow}, func(t *testing.T, l *Link, _ *fakeRedis, redis *health) {
		const rounds = 20
		for range rounds {
			redis.set(true)
			breakIt(t, l)
			time.Sleep(window)
			ask(t, l)(nil)
		}
		time.Sleep(10 * probeAfter * 3 * (rounds + 1))
		synctest.Wait()
		for i, change := range told.all {
			if want := [][2]State{{Closed, Open}, {Open, HalfOpen}, {HalfOpen, Closed}}[i%3]; change != want {
				t.Fatalf("change %d is %v, not %v", i, change, want)
			}
		}
		if len(told.all) != 3*rounds {
			t.Errorf("%d changes were told, not %d", len(told.all), 3*rounds)
		}
	})
}
