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

// trouble is a fake's, for a test to change.
type trouble struct {
	mu     sync.Mutex
	err    error         // what it answers, to probes, too
	frozen chan struct{} // closed when it thaws; nil: it is not frozen
}

func (f *trouble) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// freeze has it answer nothing until thaw.
func (f *trouble) freeze() (thaw func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	frozen := make(chan struct{})
	f.frozen = frozen
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.frozen = nil
		close(frozen)
	}
}

func (f *trouble) answer(trip []*redis.Cmd) {
	f.mu.Lock()
	frozen := f.frozen
	f.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err == nil {
		succeed(trip)
		return
	}
	for _, cmd := range trip {
		cmd.SetErr(err)
	}
}

// inBubble runs a test of a link. What it waits for takes no time.
func inBubble(t *testing.T, config Config, test func(t *testing.T, l *Link, fake *fakeRedis, redis *trouble)) {
	synctest.Test(t, func(t *testing.T) {
		redis := &trouble{}
		l, fake := newLink(t, config, redis.answer)
		defer l.Close()
		test(t, l, fake, redis)
	})
}

// neverDown is for a server that is up all the time.
func neverDown(t *testing.T) func(Change) {
	return func(change Change) { t.Errorf("it changed: %+v", change) }
}

func wantUp(t *testing.T, l *Link, up bool) {
	t.Helper()
	synctest.Wait()
	servers := l.Servers()
	if len(servers) != 1 || (servers[0].Why == nil) != up {
		t.Fatalf("the servers are %v; up: %v is wanted", servers, up)
	}
}

// wantRefused wants a command to be answered at once, and not sent.
func wantRefused(t *testing.T, l *Link, fake *fakeRedis) {
	t.Helper()
	began := time.Now()
	if _, err := l.Do(context.Background(), join("refused")); !errors.Is(err, ErrServerDown) || !errors.Is(err, coalesce.ErrUnavailable) || !NeverSent(err) {
		t.Errorf("a caller is told %v", err)
	}
	if took := time.Since(began); took != 0 || slices.Contains(fake.keys(), lease("refused")) {
		t.Errorf("it took %v; sent: %q", took, fake.keys())
	}
}

func TestASlowCommandIsItsCallersMisfortuneAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		l, fake := newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, func(trip []*redis.Cmd) {
			if trip[0].Args()[3] == lease("slow") {
				answer(trip)
			} else {
				succeed(trip)
			}
		})
		began := time.Now()
		slow := send(l, join("slow"))
		go func() {
			for range 30 {
				time.Sleep(40 * time.Millisecond)
				if _, err := l.Do(context.Background(), join("k")); err != nil {
					t.Errorf("another caller's command: %v", err)
				}
			}
		}()
		<-slow.answered
		_, err := l.Result(slow.Request)
		if took := time.Since(began); took != time.Second || FailureKind(err) != "timeout" || NeverSent(err) {
			t.Errorf("after %v: %v", took, err)
		}
		time.Sleep(time.Second)
		wantUp(t, l, true)
		if n := fake.probes(); n != 0 {
			t.Errorf("%d probes were sent to a server that answers", n)
		}
		release()
		l.Close()
	})
}

// TestALoneSlowCommandIsComparedWithAProbe has nobody else ask the server.
func TestALoneSlowCommandIsComparedWithAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		l, fake := newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, func(trip []*redis.Cmd) {
			if isProbe(trip[0]) {
				succeed(trip)
			} else {
				answer(trip)
			}
		})
		slow := send(l, join("slow"))
		time.Sleep(time.Second / 2)
		synctest.Wait()
		if n := fake.probes(); n != 1 {
			t.Errorf("%d probes were sent by half of the timeout", n)
		}
		<-slow.answered
		wantUp(t, l, true)
		release()
		l.Close()
	})
}

// TestASilentServerCostsOneTimeout freezes it under callers that came one after the other,
// some of which wait for their turn.
func TestASilentServerCostsOneTimeout(t *testing.T) {
	inBubble(t, Config{Timeout: time.Second}, func(t *testing.T, l *Link, fake *fakeRedis, redis *trouble) {
		thaw := redis.freeze()
		began := time.Now()
		var sent []request
		for range 60 {
			sent = append(sent, send(l, join("k")))
			time.Sleep(10 * time.Millisecond)
		}
		for i, r := range sent {
			<-r.answered
			if took := time.Since(began); took != time.Second {
				t.Errorf("caller %d had an answer after %v", i, took)
			}
			_, err := l.Result(r.Request)
			if !errors.Is(err, coalesce.ErrUnavailable) || FailureKind(err) != "timeout" || NeverSent(err) {
				t.Errorf("caller %d is told %v", i, err)
			}
		}
		wantUp(t, l, false)
		wantRefused(t, l, fake)
		time.Sleep(time.Minute)
		wantRefused(t, l, fake)
		thaw()
		wantUp(t, l, true)
		if _, err := l.Do(context.Background(), join("k")); err != nil {
			t.Error(err)
		}
	})
}

// TestWhatWaitsForItsTurnWhenTheServerGoesDownIsNotSent has all places taken.
func TestWhatWaitsForItsTurnWhenTheServerGoesDownIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, begun, release := hold()
		l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
			if large := trip[0].Args()[3] == lease("large"); large {
				trip[0].SetErr(errRefused)
			} else {
				answer(trip)
			}
		})
		var busy []request
		for range maxInFlight {
			busy = append(busy, send(l, join("busy")))
			<-begun
		}
		waits := send(l, join("waits"))
		<-send(l, finish("large", maxBatchedBytes+1)).answered
		<-waits.answered
		if _, err := l.Result(waits.Request); err != ErrServerDown {
			t.Errorf("what waited is told %v", err)
		}
		for _, r := range busy {
			<-r.answered
			if _, err := l.Result(r.Request); FailureKind(err) != "connection" || NeverSent(err) {
				t.Errorf("what was on its way is told %v", err)
			}
		}
		release()
		synctest.Wait()
		if slices.Contains(fake.keys(), lease("waits")) {
			t.Errorf("sent: %q", fake.keys())
		}
		wantUp(t, l, true)
		l.Close()
	})
}

// TestAQueueOfOnesOwnIsNoSilence has thousands of commands wait for much longer than the
// timeout, before a server that answers in time.
func TestAQueueOfOnesOwnIsNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, func(trip []*redis.Cmd) {
			time.Sleep(90 * time.Millisecond) // no batch gives way
			succeed(trip)
		})
		began := time.Now()
		var sent []request
		for range 30 * maxBatch {
			sent = append(sent, send(l, join("k")))
		}
		for _, r := range sent {
			<-r.answered
			if _, err := l.Result(r.Request); err != nil {
				t.Fatalf("after %v: %v", time.Since(began), err)
			}
		}
		if took := time.Since(began); took < time.Second {
			t.Errorf("it took %v: nothing waited", took)
		}
		wantUp(t, l, true)
		l.Close()
	})
}

// TestABatchThatTakesLongGivesWay has those that hang take no other's place.
func TestABatchThatTakesLongGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		l, _ := newLink(t, Config{Timeout: time.Second}, func(trip []*redis.Cmd) {
			if trip[0].Args()[3] == lease("hangs") {
				answer(trip)
			} else {
				succeed(trip)
			}
		})
		for range maxInFlight {
			send(l, join("hangs"))
			synctest.Wait()
		}
		began := time.Now()
		if _, err := l.Do(context.Background(), join("next")); err != nil || time.Since(began) != time.Second/looks {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		release()
		synctest.Wait()
		s := l.only
		s.mu.Lock()
		if s.free != maxInFlight || len(s.flying) != 0 {
			t.Errorf("%d batches may begin, and %d are under way", s.free, len(s.flying))
		}
		s.mu.Unlock()
		time.Sleep(time.Second) // what is over expires no more
		l.Close()
	})
}

// TestAClientThatHangsIsNotWaitedFor has it ignore the context of a large command, whose
// expiry alone says nothing of the server.
func TestAClientThatHangsIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer, _, release := hold()
		l, fake := newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, func(trip []*redis.Cmd) {
			if isProbe(trip[0]) {
				succeed(trip)
			} else {
				answer(trip)
			}
		})
		began := time.Now()
		large := send(l, finish("large", 1<<20))
		<-large.answered
		_, err := l.Result(large.Request)
		if took := time.Since(began); took != Allowed(time.Second, 1<<20) || FailureKind(err) != "timeout" || NeverSent(err) {
			t.Errorf("after %v: %v", took, err)
		}
		wantUp(t, l, true)
		if n := fake.probes(); n != 1 {
			t.Errorf("%d probes have told", n)
		}
		release()
		l.Close()
	})
}
