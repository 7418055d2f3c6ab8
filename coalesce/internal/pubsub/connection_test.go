package pubsub

import (
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

// TestAnUnsubscribeMayOvertakeTheNextSubscribe drops an idle channel and subscribes to
// it in the same moment: the two commands are written in either order.
func TestAnUnsubscribeMayOvertakeTheNextSubscribe(t *testing.T) {
	overtaken := 0
	for range 200 {
		inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
			confirmed(t, s, "c").Close()
			server.sent()
			s.mu.Lock()
			s.dropIdle(1)
			s.mu.Unlock()
			w := s.Subscribe("c")
			synctest.Wait()
			if got := server.sent("SUBSCRIBE", "UNSUBSCRIBE"); slices.Equal(got, []string{"SUBSCRIBE c", "UNSUBSCRIBE c", "SUBSCRIBE c"}) {
				overtaken++
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
	if overtaken == 0 {
		t.Error("in 200 tries, none was overtaken: this test shows nothing")
	}
}

// TestAReconnectWakesEveryWaiterAndSubscribesToAll cuts the connection while the server
// takes no other one, and has channels come and go meanwhile.
func TestAReconnectWakesEveryWaiterAndSubscribesToAll(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		c, d := confirmed(t, s, "c"), confirmed(t, s, "d")
		confirmed(t, s, "idle").Close()
		server.change(func(f *fakeServer) { f.refuses = true })
		server.cut()
		synctest.Wait()
		for _, w := range []*Waiter{c, d} {
			if n := w.Take(flight); !w.woken() || !n.Missed || n.Confirmed {
				t.Errorf("when the connection is lost: %+v", n)
			}
		}
		if s.Existing("c") != nil {
			t.Error("a waiter on a lost connection")
		}
		e := s.Subscribe("e")
		server.sent()
		server.change(func(f *fakeServer) { f.refuses = false })
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		subscribed := map[string]bool{}
		for _, command := range server.sent("SUBSCRIBE") {
			for _, channel := range strings.Fields(command)[1:] {
				subscribed[channel] = true
			}
		}
		for _, channel := range []string{"control", "c", "d", "idle", "e"} {
			if !subscribed[channel] {
				t.Errorf("it did not subscribe to %q", channel)
			}
		}
		for _, w := range []*Waiter{c, d, e} {
			if n := w.Take(flight); !w.woken() || !n.Missed || !n.Confirmed {
				t.Errorf("when it is there again: %+v", n)
			}
		}
		if h.connects != 2 || h.failures == 0 {
			t.Errorf("heard of %d connections and %d failures", h.connects, h.failures)
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
				if n := w.Take(flight); test.waits && (!w.woken() || !n.Missed) {
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
