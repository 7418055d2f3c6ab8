package pubsub

import (
	"testing"
	"testing/synctest"
	"time"
)

// refused says whether w learns that its subscription is.
func refused(w *Waiter) bool {
	synctest.Wait()
	n := w.Take(flight)
	return n.Refused
}

// TestARefusedSubscriptionIsKnown has the server begin to refuse while a waiter waits, and
// end.
func TestARefusedSubscriptionIsKnown(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		first := confirmed(t, s, "c")
		if refused(first) {
			t.Error("a confirmed subscription is said to be refused")
		}
		server.change(func(f *fakeServer) { f.unable = true })
		server.cut()
		synctest.Wait()
		if refused(first) {
			t.Error("a connection that was cut is said to be refused before it was made again")
		}
		first.woken()
		time.Sleep(minBackoff)
		if !refused(first) || !first.woken() {
			t.Error("who waits is not told")
		}
		dials := server.dialled()
		if !refused(s.Subscribe("d")) {
			t.Error("who comes is not told")
		}
		time.Sleep(time.Minute)
		if n := server.dialled() - dials; n < 10 || n > 20 {
			t.Errorf("it was tried %d times in a minute", n)
		}
		server.change(func(f *fakeServer) { f.unable = false })
		time.Sleep(maxRefused)
		if refused(first) || refused(s.Subscribe("e")) || s.Existing("d") == nil {
			t.Error("a server that subscribes again is said to refuse")
		}
	})
}

// TestAServerThatDoesNotConfirmCostsOneWaiterItsTime has the server read, and answer nothing.
func TestAServerThatDoesNotConfirmCostsOneWaiterItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		third := confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		first, second := s.Subscribe("d"), s.Subscribe("e")
		time.Sleep(timeout)
		if refused(first) || refused(second) {
			t.Error("silence was taken for a refusal by itself")
		}
		second.woken()
		dials := server.dialled()
		if !first.GiveUp() {
			t.Error("it waits on")
		}
		if !second.woken() || !refused(second) || !refused(s.Subscribe("f")) {
			t.Error("the others wait, too")
		}
		if n := third.Take(flight); n.Refused || !n.Confirmed || third.woken() {
			t.Error("who is confirmed is disturbed")
		}
		time.Sleep(timeout / 2)
		server.change(func(f *fakeServer) { f.deaf = false })
		time.Sleep(timeout / 2)
		synctest.Wait()
		if n := third.Take(flight); n.Confirmed || n.Refused {
			t.Errorf("while the connection is made again, who was confirmed learns %+v", n)
		}
		time.Sleep(timeout / 2)
		if refused(second) || s.Existing("d") == nil || server.dialled() == dials {
			t.Error("the connection was not replaced")
		}
	})
}

// TestASubscriptionThatIsConfirmedLateIsRefusedNoMore has the answer come after a waiter has
// given up.
func TestASubscriptionThatIsConfirmedLateIsRefusedNoMore(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		third := confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		first := s.Subscribe("d")
		time.Sleep(timeout)
		first.GiveUp()
		dials := server.dialled()
		time.Sleep(timeout / 2)
		server.publish("c", outcome(1))
		time.Sleep(beat / 2)
		if refused(first) || server.dialled() != dials || !third.Take(flight).Came {
			t.Error("the connection was not trusted again")
		}
	})
}

// TestWhoGivesUpBesideOthersThatHearBlamesNobody has one subscription alone lost.
func TestWhoGivesUpBesideOthersThatHearBlamesNobody(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		w := s.Subscribe("d")
		time.Sleep(timeout / 2)
		server.publish("c", outcome(1))
		time.Sleep(timeout / 2)
		dials := server.dialled()
		if !w.GiveUp() {
			t.Error("it waits on, though no other is confirmed")
		}
		time.Sleep(time.Millisecond)
		if refused(w) || server.dialled() != dials {
			t.Error("the connection was blamed")
		}
	})
}

// TestWhoIsConfirmedLateBecauseManyAreWaitsOn has another channel confirmed just before.
func TestWhoIsConfirmedLateBecauseManyAreWaitsOn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		w := s.Subscribe("d")
		time.Sleep(timeout / 2)
		server.change(func(f *fakeServer) { f.deaf = false })
		confirmed(t, s, "e")
		time.Sleep(timeout / 2)
		if w.GiveUp() {
			t.Error("it gives up")
		}
		time.Sleep(timeout)
		if !w.GiveUp() {
			t.Error("it waits on for ever")
		}
	})
}

// TestAChannelThatMovedIsNotRefused has a server answer as one of a Cluster whose slot has
// moved: the client is about to learn where it is.
func TestAChannelThatMovedIsNotRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		w := confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.moved = true })
		server.cut()
		time.Sleep(5 * minBackoff)
		if refused(w) {
			t.Error("it is said to be refused")
		}
		server.change(func(f *fakeServer) { f.moved = false })
		time.Sleep(maxBackoff)
		if n := w.Take(flight); !n.Confirmed {
			t.Error("it is not confirmed again")
		}
	})
}

// TestRetryDoesNotWaitForTheNextAttempt has a server come back.
func TestRetryDoesNotWaitForTheNextAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		time.Sleep(time.Minute + maxBackoff/3)
		server.change(func(f *fakeServer) { f.refuses = false })
		began := time.Now()
		s.Retry()
		confirmed(t, s, "c")
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.messages < 3 { // the control channel twice, and c
			t.Errorf("%d messages were heard", h.messages)
		}
	})
}

// TestAServerThatWasAwayDoesNotRefuse has it come back while the next attempt to connect is
// far away: who comes then has it made at once, and waits.
func TestAServerThatWasAwayDoesNotRefuse(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c").Close()
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		time.Sleep(time.Minute + maxBackoff/3)
		server.change(func(f *fakeServer) { f.refuses = false })
		began := time.Now()
		for _, channel := range []string{"c", "d"} {
			w := s.Subscribe(channel)
			if n := w.Take(flight); n.Refused {
				t.Errorf("who comes to %s is told to run alone", channel)
			}
			synctest.Wait()
			if n := w.Take(flight); !n.Confirmed || time.Since(began) != 0 {
				t.Errorf("who comes to %s has to wait: %+v", channel, n)
			}
		}
	})
}

// TestAServerThatStaysAwayCostsOneWaiterItsTime is for a way to Redis that has commands
// pass alone.
func TestAServerThatStaysAwayCostsOneWaiterItsTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		time.Sleep(time.Minute)
		first := s.Subscribe("c")
		time.Sleep(timeout)
		if refused(first) || !first.GiveUp() {
			t.Error("it does not wait for its time")
		}
		for range 3 {
			if !refused(s.Subscribe("d")) {
				t.Error("the next one waits, too")
			}
			time.Sleep(2 * maxBackoff)
		}
	})
}
