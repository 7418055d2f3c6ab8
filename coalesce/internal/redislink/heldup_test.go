package redislink

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

// unread returns an answer like that of a process that is held up for so long: its looks do
// not come, and its client finds a reply only after that, which it throws away when its
// deadline has passed. Others than the first such trips are answered at once.
func unread(l **Link, fake **fakeRedis, heldUp time.Duration, trips int32) func(trip []*redis.Cmd) {
	var before atomic.Int32
	return func(trip []*redis.Cmd) {
		if before.Add(1) > trips {
			succeed(trip)
			return
		}
		(*l).pending.Close()
		time.Sleep(heldUp)
		(*fake).mu.Lock()
		deadline, _ := (*fake).ctx.Deadline()
		(*fake).mu.Unlock()
		if time.Now().Before(deadline) {
			succeed(trip)
			return
		}
		for _, cmd := range trip {
			cmd.SetErr(context.DeadlineExceeded)
		}
	}
}

// TestAReplyThatNobodyCouldReadInTimeIsTaken has commands alone and together on their way
// while the process is held up for longer than the timeout.
func TestAReplyThatNobodyCouldReadInTimeIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Link
		var fake *fakeRedis
		l, fake = newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, unread(&l, &fake, 1500*time.Millisecond, 2))
		s := l.only
		s.mu.Lock()
		s.free = 1
		s.mu.Unlock()
		var sent []request
		for i := range 4 {
			sent = append(sent, send(l, join(strconv.Itoa(i))))
			synctest.Wait() // the first is on its way, alone
		}
		for _, r := range sent {
			<-r.answered
			if reply, err := l.Result(r.Request); reply != int64(1) || err != nil {
				t.Errorf("it is answered %v, %v", reply, err)
			}
		}
		if got := fake.sizes(); !slices.Equal(got, []int{1, 3}) {
			t.Errorf("the round trips had %v commands", got)
		}
		l.Close()
	})
}

// TestACallerThatWasHeldUpSendsAgain keeps a caller's own goroutine for no longer than the
// timeout.
func TestACallerThatWasHeldUpSendsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Link
		var fake *fakeRedis
		l, fake = newLink(t, Config{Timeout: time.Second, OnChange: neverDown(t)}, unread(&l, &fake, time.Second, 1))
		r := newRequest(l, join("k"))
		if l.SendHere(r.Request) {
			t.Fatalf("it is answered: %v", r.err)
		}
		again := time.Now()
		<-r.answered
		if reply, err := l.Result(r.Request); reply != int64(1) || err != nil {
			t.Errorf("it is answered %v, %v", reply, err)
		}
		if sent, received := r.Trip(); sent.Before(again) || received.Before(sent) {
			t.Errorf("the reply was on its way from %v to %v; it was sent again at %v", sent, received, again)
		}
		if keys := fake.keys(); !slices.Equal(keys, []string{lease("k"), lease("k")}) {
			t.Errorf("sent: %q", keys)
		}
		l.Close()
	})
}

// TestARepeatThatIsNotSentMayHaveRun has the server go down while the repeat waits for its
// turn: the command may have taken a lease the first time.
func TestARepeatThatIsNotSentMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Link
		var fake *fakeRedis
		lost := unread(&l, &fake, time.Second, 1)
		l, fake = newLink(t, Config{Timeout: time.Second}, func(trip []*redis.Cmd) {
			lost(trip)
			l.only.mu.Lock()
			l.only.free = -1 // no room, when this one has landed
			l.only.mu.Unlock()
		})
		r := newRequest(l, join("k"))
		if l.SendHere(r.Request) {
			t.Fatalf("it is answered: %v", r.err)
		}
		l.only.goDown(redisError("OOM command not allowed"), 0)
		<-r.answered
		if _, err := r.Reply(); err == nil || NeverSent(err) {
			t.Errorf("it is answered %v", err)
		}
		if keys := fake.keys(); !slices.Equal(keys, []string{lease("k")}) {
			t.Errorf("sent: %q", keys)
		}
		l.Close()
	})
}
