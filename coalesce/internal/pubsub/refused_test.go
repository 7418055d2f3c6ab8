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

// TestADoubtfulConnectionIsPingedOnce has the server read, and answer nothing. It does not
// refuse: those who wait look what becomes of their flights.
func TestADoubtfulConnectionIsPingedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		third := confirmed(t, s, "c")
		server.sent()
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		first, second := s.Subscribe("d"), s.Subscribe("e")
		time.Sleep(timeout)
		dials := server.dialled()
		first.Doubt()
		second.Doubt()
		third.Doubt() // its subscription is confirmed
		synctest.Wait()
		if pings := len(server.sent("PING")); pings != 1 || third.woken() {
			t.Errorf("%d pings", pings)
		}
		time.Sleep(timeout + 2*minBackoff)
		synctest.Wait()
		if server.dialled() != dials+1 || refused(first) || refused(third) {
			t.Error("the connection was not replaced, or its silence was taken for a refusal")
		}
		time.Sleep(timeout)
		first.Doubt() // the next one is silent, too
		time.Sleep(timeout + maxBackoff)
		synctest.Wait()
		if server.dialled() == dials+1 || refused(first) || refused(s.Subscribe("f")) {
			t.Error("the next connection was not replaced, or its silence was taken for a refusal")
		}
		server.change(func(f *fakeServer) { f.deaf = false })
		time.Sleep(silence + beat + timeout + maxBackoff)
		synctest.Wait()
		if n := first.Take(flight); !n.Confirmed || s.Existing("c") == nil {
			t.Error("it is not confirmed in the end")
		}
	})
}

// TestAConnectionIsTrustedWhenSomethingComes has one subscription alone lost, or late.
func TestAConnectionIsTrustedWhenSomethingComes(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		third := confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		time.Sleep(time.Millisecond)
		first := s.Subscribe("d")
		time.Sleep(timeout / 2)
		server.publish("c", outcome(1))
		time.Sleep(timeout / 2)
		dials := server.dialled()
		first.Doubt()
		synctest.Wait()
		if pings := len(server.sent("PING")); pings != 0 {
			t.Errorf("%d pings on a connection that was heard of", pings)
		}
		time.Sleep(timeout / 2)
		first.Doubt()
		time.Sleep(timeout / 2)
		server.publish("c", outcome(1)) // before the ping's time is over
		time.Sleep(beat / 2)
		if refused(first) || server.dialled() != dials || !third.Take(flight).Came {
			t.Error("the connection was not trusted again")
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

// TestAServerThatStaysAwayDoesNotRefuse is for a way to Redis that has commands pass alone.
func TestAServerThatStaysAwayDoesNotRefuse(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		time.Sleep(time.Minute)
		w := s.Subscribe("c")
		time.Sleep(timeout)
		w.Doubt()
		if refused(w) || refused(s.Subscribe("d")) {
			t.Error("who waits is told to run alone")
		}
	})
}
