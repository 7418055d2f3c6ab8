package pubsub

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

func TestTheControlChannelIsSubscribedFromTheStart(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		h.want(t, 1, 0, 0)
		server.publish("control", "notice\x00\xff")
		if len(h.control) != 1 || h.control[0] != "notice\x00\xff" {
			t.Errorf("heard %q", h.control)
		}
		if got := server.sent("SUBSCRIBE"); len(got) != 1 || got[0] != "SUBSCRIBE control" {
			t.Errorf("sent %q", got)
		}
		if s.PublishCommand() != "PUBLISH" {
			t.Errorf("on one server, outcomes are published with %s", s.PublishCommand())
		}
	})
}

func TestOutcomesAreSpreadOverTheShardsOfACluster(t *testing.T) {
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	defer cluster.Close()
	if s := (&Subscriptions{cluster: cluster}); s.PublishCommand() != "SPUBLISH" {
		t.Errorf("on a Cluster, outcomes are published with %s", s.PublishCommand())
	}
}

// TestAWaiterPeeksWhenItsNewChannelIsConfirmed tells that from the waiters of channels
// that were confirmed before: Existing's has missed nothing, and Subscribe's may have.
func TestAWaiterPeeksWhenItsNewChannelIsConfirmed(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		if s.Existing("c") != nil {
			t.Fatal("a waiter on a channel that nobody has subscribed to")
		}
		server.change(func(f *fakeServer) { f.deaf = true })
		first := s.Subscribe("c")
		synctest.Wait()
		if n := first.Take(flight); first.woken() || n.Confirmed || n.Missed {
			t.Errorf("before the server has confirmed: %+v", n)
		}
		if s.Existing("c") != nil {
			t.Error("a waiter on a channel that is not confirmed")
		}
		server.change(func(f *fakeServer) { f.deaf = false })
		server.cut() // it confirms on the next connection
		time.Sleep(minBackoff)
		synctest.Wait()
		if n := first.Take(flight); !first.woken() || !n.Confirmed || !n.Missed || n.Came {
			t.Errorf("when the server has confirmed: %+v", n)
		}
		if n := first.Take(flight); !n.Confirmed || n.Missed {
			t.Errorf("after that: %+v", n)
		}
		existing, late := s.Existing("c"), s.Subscribe("c")
		if n := existing.Take(flight); existing.woken() || !n.Confirmed || n.Missed {
			t.Errorf("an existing one: %+v", n)
		}
		if n := late.Take(flight); !late.woken() || !n.Confirmed || !n.Missed {
			t.Errorf("a late one: %+v", n)
		}
	})
}

// TestAWaiterGetsItsFlightsMessage has one come before the waiter knows its flight.
func TestAWaiterGetsItsFlightsMessage(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		w, other, elsewhere := confirmed(t, s, "c"), s.Existing("c"), confirmed(t, s, "d")
		server.publish("c", outcome(7))
		if n := w.Take(flight); !w.woken() || !n.Came || n.Missed || string(n.Outcome.Payload) != "7" {
			t.Errorf("the flight's own: %+v", n)
		}
		if n := w.Take(flight); n.Came {
			t.Errorf("it comes twice: %+v", n)
		}
		if n := other.Take("another-flight-22chars"); !other.woken() || n.Came || n.Missed {
			t.Errorf("another flight's: %+v", n)
		}
		if n := elsewhere.Take(flight); elsewhere.woken() || n.Came {
			t.Errorf("another channel's: %+v", n)
		}
		h.want(t, 1, 0, 0)
	})
}

// owner is told by whom its key was forgotten.
type owner struct{ by []string }

func (o *owner) Forgotten(by string) { o.by = append(o.by, by) }

// TestWhoWaitsIsToldThatItsKeyWasForgotten has the message beside an outcome, and a waiter
// that wants nothing else.
func TestWhoWaitsIsToldThatItsKeyWasForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		forgotten := string(wire.Outcome{Kind: wire.KindForgotten, Flight: "forgetter-flight-22cha"}.Encode())
		w, muted, untold, elsewhere := confirmed(t, s, "c"), s.Existing("c"), s.Existing("c"), confirmed(t, s, "d")
		first, second, third := &owner{}, &owner{}, &owner{}
		w.Tell(first)
		muted.Tell(second)
		muted.Mute()
		elsewhere.Tell(third)
		server.publish("c", outcome(7))
		server.publish("c", forgotten)
		if len(first.by) != 1 || first.by[0] != "forgetter-flight-22cha" || len(second.by) != 1 || len(third.by) != 0 {
			t.Errorf("told: %q, %q; another channel's: %q", first.by, second.by, third.by)
		}
		if n := w.Take(flight); !n.Came || n.Missed {
			t.Errorf("the outcome before it: %+v", n)
		}
		if n := muted.Take(flight); n.Came || n.Missed || muted.woken() {
			t.Errorf("a waiter that takes nothing: %+v", n)
		}
		untold.woken()
		server.publish("c", forgotten)
		if untold.woken() {
			t.Error("it wakes a waiter for no news")
		}
		server.publish("nobody's", forgotten)
		h.want(t, 1, 0, 0)
	})
}

// TestTooManyMessagesAreMissedOnes fills a waiter that does not look.
func TestTooManyMessagesAreMissedOnes(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		w := confirmed(t, s, "c")
		for i := range maxMessages {
			server.publish("c", outcome(i))
		}
		if n := w.Take(flight); n.Missed || !n.Came {
			t.Errorf("%d messages: %+v", maxMessages, n)
		}
		foreign := string(wire.Outcome{Kind: wire.KindValue, Flight: "another-flight-22chars"}.Encode())
		server.publish("c", alive(flight, time.Minute))
		server.publish("c", outcome(1))
		for range maxMessages {
			server.publish("c", foreign)
		}
		if n := w.Take(flight); !n.Missed || n.Came || n.Alive {
			t.Errorf("its own came before %d others: %+v", maxMessages, n)
		}
		if len(w.messages) != 0 || cap(w.messages) != 0 {
			t.Errorf("messages are kept: %d", len(w.messages))
		}
	})
}

func TestGarbageMakesEveryWaiterOfItsChannelPeek(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		w, other, elsewhere := confirmed(t, s, "c"), s.Existing("c"), confirmed(t, s, "d")
		server.publish("c", "garbage")
		for _, w := range []*Waiter{w, other} {
			if n := w.Take(flight); !w.woken() || !n.Missed || n.Came {
				t.Errorf("after garbage: %+v", n)
			}
		}
		if elsewhere.woken() {
			t.Error("a waiter of another channel was woken")
		}
		server.publish("nobody's", "garbage")
		h.want(t, 1, 0, 1)
	})
}

// TestAnIdleChannelStaysForAWhile has it used again in time, and then no more.
func TestAnIdleChannelStaysForAWhile(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		w := confirmed(t, s, "c")
		w.Close()
		time.Sleep(idleTime - 1)
		again := s.Existing("c")
		if again == nil {
			t.Fatal("it was dropped too soon")
		}
		time.Sleep(2 * idleTime) // it is not idle
		if other := s.Existing("c"); other == nil {
			t.Fatal("it was dropped though it has a waiter")
		} else {
			other.Close()
		}
		again.Close()
		time.Sleep(idleTime - 1)
		if got := server.sent("UNSUBSCRIBE"); len(got) != 0 {
			t.Errorf("sent %q too soon", got)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if got := server.sent("UNSUBSCRIBE"); len(got) != 1 || got[0] != "UNSUBSCRIBE c" || s.Existing("c") != nil {
			t.Errorf("sent %q, and it exists: %v", got, s.Existing("c") != nil)
		}
		if channels, idle := s.counts(); channels != 0 || idle != 0 {
			t.Errorf("left: %d channels, %d of them idle", channels, idle)
		}
	})
}

// TestIdleChannelsAreBounded has more of them than are kept: those that are idle for
// longest go.
func TestIdleChannelsAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		const over = 3
		var all []*Waiter
		for i := range maxIdle + over {
			all = append(all, s.Subscribe(fmt.Sprint(i)))
		}
		synctest.Wait()
		for _, w := range all {
			w.Close()
		}
		synctest.Wait()
		if got := strings.Fields(strings.Join(server.sent("UNSUBSCRIBE"), " ")); !slices.Equal(slices.DeleteFunc(got, func(word string) bool { return word == "UNSUBSCRIBE" }), []string{"0", "1", "2"}) {
			t.Errorf("ended %q", got)
		}
		if channels, idle := s.counts(); channels != maxIdle || idle != maxIdle {
			t.Errorf("%d channels are kept, %d of them idle", channels, idle)
		}
		time.Sleep(idleTime)
		synctest.Wait()
		if got := server.sent("UNSUBSCRIBE"); len(got) != maxIdle/maxChannels || strings.Count(strings.Join(got, " "), " ") != maxIdle+len(got)-1 {
			t.Errorf("%d commands for %d channels", len(got), maxIdle)
		}
	})
}

// alive is a message that a flight runs, and has a lease for so long.
func alive(flight string, lease time.Duration) string {
	return string(wire.AliveOf(flight, lease).Encode())
}

// TestASignOfLifeIsNoOutcome has one for each of two flights, one of which has an outcome.
func TestASignOfLifeIsNoOutcome(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, h *heard) {
		const other = "another-flight-22chars"
		w, late := confirmed(t, s, "c"), s.Existing("c")
		server.publish("c", outcome(1))
		server.publish("c", alive(flight, time.Minute))
		until := time.Now().Add(time.Minute)
		time.Sleep(time.Second) // as it was when the message came
		server.publish("c", alive(other, time.Hour))
		if n := w.Take(flight); !w.woken() || !n.Came || !n.Alive || !n.Until.Equal(until) || n.Missed || string(n.Outcome.Payload) != "1" {
			t.Errorf("it learned %+v", n)
		}
		for range 2 * maxMessages {
			server.publish("c", alive(flight, time.Minute))
		}
		if n := late.Take(other); n.Came || !n.Alive || n.Missed {
			t.Errorf("who follows the other learned %+v", n)
		}
		if n := w.Take(other); n.Alive {
			t.Errorf("it comes twice: %+v", n)
		}
		h.want(t, 1, 0, 0)
	})
}

// TestASignOfLifeFromBeforeProvesNothing has the connection lost after it.
func TestASignOfLifeFromBeforeProvesNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, s *Subscriptions, server *fakeServer, _ *heard) {
		w := confirmed(t, s, "c")
		server.publish("c", alive(flight, time.Minute))
		server.cut()
		time.Sleep(minBackoff)
		synctest.Wait()
		if n := w.Take(flight); !n.Missed || n.Alive {
			t.Errorf("it learned %+v", n)
		}
		server.publish("c", alive(flight, time.Minute))
		if n := w.Take(flight); n.Missed || !n.Alive {
			t.Errorf("it learned %+v", n)
		}
	})
}
