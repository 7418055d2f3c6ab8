package pubsub

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestAChannelThatIsWantedIsSubscribedAgain has the server end a subscription, as a
// Cluster's does when a slot moves.
func TestAChannelThatIsWantedIsSubscribedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		w := confirmed(t, s, "c")
		server.sent()
		server.unsubscribe("c")
		synctest.Wait()
		if got := server.sent("SUBSCRIBE"); !slices.Equal(got, []string{"SUBSCRIBE c"}) {
			t.Errorf("sent %q", got)
		}
		if n := w.Take(flight); !w.woken() || !n.Missed || !n.Confirmed {
			t.Errorf("the waiter learned %+v", n)
		}
		server.publish("c", outcome(1))
		if n := w.Take(flight); !n.Came {
			t.Errorf("the next message did not come: %+v", n)
		}
	})
}

// TestAChannelThatIsDroppedAndWantedAgainIsSubscribed has the next follower of an idle
// channel come in the moment when that is dropped.
func TestAChannelThatIsDroppedAndWantedAgainIsSubscribed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c").Close()
		server.sent()
		s.mu.Lock()
		s.dropIdle(1)
		s.mu.Unlock()
		w := s.Subscribe("c")
		synctest.Wait()
		if got := server.sent("SUBSCRIBE", "UNSUBSCRIBE"); len(got) < 2 || got[0] != "UNSUBSCRIBE c" || got[1] != "SUBSCRIBE c" {
			t.Errorf("sent %q", got)
		}
		if n := w.Take(flight); !n.Confirmed {
			t.Fatalf("it is not subscribed in the end: %+v", n)
		}
		server.publish("c", outcome(1))
		if n := w.Take(flight); !n.Came {
			t.Fatalf("its message did not come: %+v", n)
		}
	})
}

// TestAReconnectSubscribesOnceToWhatIsWaitedOn cuts the connection while the server
// takes no other one, and has channels come and go meanwhile. Waiters look once: when they
// are subscribed again.
func TestAReconnectSubscribesOnceToWhatIsWaitedOn(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		c, d := confirmed(t, s, "c"), confirmed(t, s, "d")
		confirmed(t, s, "idle").Close()
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		synctest.Wait()
		for _, w := range []*Waiter{c, d} {
			if n := w.Take(flight); !w.woken() || n.Missed || n.Confirmed {
				t.Errorf("when the connection is lost: %+v", n)
			}
		}
		if channels, idle := s.counts(); s.Existing("c") != nil || channels != 2 || idle != 0 {
			t.Errorf("%d channels are kept, %d of them idle; a waiter on a lost connection: %v", channels, idle, s.Existing("c"))
		}
		time.Sleep(maxBackoff)
		if c.woken() {
			t.Error("a waiter was woken because the next attempt failed, too")
		}
		e := s.Subscribe("e")
		server.sent()
		server.change(func(f *fakeServer) { f.refuses = false })
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		subscribed := map[string]int{}
		for _, command := range server.sent("SUBSCRIBE") {
			for _, channel := range strings.Fields(command)[1:] {
				subscribed[channel]++
			}
		}
		if want := map[string]int{"control": 1, "c": 1, "d": 1, "e": 1}; !maps.Equal(subscribed, want) {
			t.Errorf("subscribed to %v", subscribed)
		}
		for _, w := range []*Waiter{c, d, e} {
			if n := w.Take(flight); !w.woken() || !n.Missed || !n.Confirmed || w != e && (n.Spread < 2*spreadEach || n.Spread > 3*spreadEach) {
				t.Errorf("when it is there again: %+v", n)
			}
		}
		if h.connects != 2 || h.failures == 0 || h.deaf != h.failures {
			t.Errorf("heard of %d connections and %d failures, %d of them with a waiter", h.connects, h.failures, h.deaf)
		}
	})
}

// TestALossThatNobodyWaitsOnIsNoDoubt leaves the server alone.
func TestALossThatNobodyWaitsOnIsNoDoubt(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		confirmed(t, s, "c").Close()
		server.cut()
		time.Sleep(maxBackoff)
		synctest.Wait()
		h.want(t, 2, 1, 0)
		if h.deaf != 0 {
			t.Errorf("%d times, somebody waited", h.deaf)
		}
	})
}

// TestTheClientDoesNotReconnectByItself would subscribe to everything a second time.
func TestTheClientDoesNotReconnectByItself(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c")
		for range 3 {
			server.sent()
			before := server.dialled()
			server.cut()
			time.Sleep(maxBackoff)
			synctest.Wait()
			if got := server.sent("SUBSCRIBE"); server.dialled() != before+1 || !slices.Equal(got, []string{"SUBSCRIBE control", "SUBSCRIBE c"}) {
				t.Errorf("it dialled %d times, and sent %q", server.dialled()-before, got)
			}
		}
	})
}

// TestManyChannelsAreSubscribedInPieces has more of them than one command takes.
func TestManyChannelsAreSubscribedInPieces(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		const crowd = 3 * maxChannels
		var all []*Waiter
		for i := range crowd {
			all = append(all, s.Subscribe(fmt.Sprint(i)))
		}
		synctest.Wait()
		server.sent()
		server.cut()
		time.Sleep(minBackoff)
		synctest.Wait()
		sent := server.sent("SUBSCRIBE")
		if len(sent) != 1+crowd/maxChannels {
			t.Errorf("%d commands", len(sent))
		}
		for _, command := range sent {
			if strings.Count(command, " ") > maxChannels {
				t.Errorf("one of them has %d channels", strings.Count(command, " "))
			}
		}
		for _, w := range all {
			if n := w.Take(flight); !n.Confirmed || n.Spread != timeout {
				t.Fatalf("a waiter learned %+v", n)
			}
		}
	})
}

// TestReconnectingWaitsLongerEachTime counts the dials at a server that is down.
func TestReconnectingWaitsLongerEachTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		began := time.Now()
		var tries []time.Duration
		for before := server.dialled(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
			synctest.Wait()
			if n := server.dialled(); n > before {
				tries, before = append(tries, time.Since(began)), n
			}
		}
		synctest.Wait()
		if len(tries) == 0 || tries[0] > minBackoff {
			t.Fatalf("it tried after %v", tries)
		}
		for i := range tries[:len(tries)-1] {
			if wait := tries[i+1] - tries[i]; wait > maxBackoff+time.Millisecond {
				t.Errorf("it waited for %v", wait)
			}
		}
		if n := len(tries); n < 10 || n > 25 { // 10, 20, … 640 ms, and then each second
			t.Errorf("it tried %d times in ten seconds: %v", n, tries)
		}
	})
}

// TestASilentConnectionIsFound has the server hang with a waiter, and without one.
func TestASilentConnectionIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		waits bool
		limit time.Duration
	}{
		// A waiter must have waited for a beat when the next one comes.
		"with a waiter":  {true, 2*beat + timeout},
		"without waiter": {false, silence + beat + timeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
				w := confirmed(t, s, "c")
				if !test.waits {
					w.Close()
				}
				time.Sleep(beat/2 + timeout) // between two beats
				before := server.dialled()
				server.change(func(f *fakeServer) { f.deaf = true })
				began := time.Now()
				for server.dialled() == before {
					if time.Since(began) > time.Minute {
						t.Fatal("it is not found")
					}
					time.Sleep(time.Millisecond)
					synctest.Wait()
				}
				if took := time.Since(began); took > test.limit+time.Millisecond {
					t.Errorf("it was found after %v, not %v", took, test.limit)
				}
				if n := w.Take(flight); test.waits && (!w.woken() || n.Confirmed && !n.Missed) {
					t.Errorf("the waiter learned %+v", n)
				}
				h.want(t, 1, 1, 0)
			})
		})
	}
}

// TestAConnectionThatAnswersIsKept is pinged at each beat, and never replaced.
func TestAConnectionThatAnswersIsKept(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		w := confirmed(t, s, "c")
		before := server.dialled()
		time.Sleep(20 * beat)
		synctest.Wait()
		if pings := len(server.sent("PING")); pings < 17 || pings > 20 {
			t.Errorf("%d pings in 20 beats", pings)
		}
		if server.dialled() != before || w.woken() {
			t.Errorf("it was replaced")
		}
		w.Close()
		server.sent()
		time.Sleep(2*silence + beat)
		synctest.Wait()
		if pings := len(server.sent("PING")); pings < 1 || pings > 2 {
			t.Errorf("%d pings in %v without a waiter", pings, 2*silence+beat)
		}
		h.want(t, 1, 0, 0)
	})
}

// TestHastenMakesTheBeatShorter never makes it longer.
func TestHastenMakesTheBeatShorter(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		confirmed(t, s, "c")
		for _, d := range []time.Duration{beat / 2, beat / 10, beat, beat / 10} { // faster than they are read
			s.Hasten(d)
		}
		time.Sleep(beat)
		server.sent()
		time.Sleep(10 * beat)
		synctest.Wait()
		if pings := len(server.sent("PING")); pings < 90 || pings > 101 {
			t.Errorf("%d pings in 100 beats", pings)
		}
	})
}

// TestDistrustReplacesTheConnection is for one that works, and is at the wrong server.
func TestDistrustReplacesTheConnection(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		w := confirmed(t, s, "c")
		before := server.dialled()
		w.Distrust()
		time.Sleep(minBackoff)
		synctest.Wait()
		if server.dialled() != before+1 {
			t.Errorf("it dialled %d times", server.dialled()-before)
		}
		if n := w.Take(flight); !w.woken() || !n.Missed || !n.Confirmed {
			t.Errorf("the waiter learned %+v", n)
		}
		if n := len(server.subscribed("c")); n != 1 {
			t.Errorf("%d connections are subscribed", n)
		}
		h.want(t, 2, 1, 0)
	})
}

// TestCloseEndsWhatIsUnderWay closes while it waits to connect again, while a channel is
// subscribed, and while a connection is silent. No goroutine may be left.
func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		time.Sleep(10 * time.Second)
		began := time.Now()
		s.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("Close took %v while it waits to connect again", took)
		}
	})
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		w := confirmed(t, s, "c")
		server.change(func(f *fakeServer) { f.deaf = true })
		s.Subscribe("d")
		time.Sleep(beat + timeout/2) // a ping is on its way
		s.Close()
		w.Close()
		s.Subscribe("e").Close() // what comes late does no harm
		s.Retry()
		time.Sleep(time.Hour)
		h.want(t, 1, 0, 0) // a connection that Close ends is not lost
	})
}
