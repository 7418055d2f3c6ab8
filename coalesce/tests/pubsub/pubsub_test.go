// Package pubsub_test holds a replica's subscriptions against real servers. What needs a
// fake clock is tested in the package itself.
package pubsub_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/internal/pubsub"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const flight = "foreign-flight-22chars"

var message = string(wire.Outcome{Kind: wire.KindValue, Flight: flight, Codec: "json", Payload: []byte("1")}.Encode())

// open returns subscriptions that are closed when the test ends, and what receives for
// each subscription to the control channel.
func open(t *testing.T, client redis.UniversalClient) (*pubsub.Subscriptions, <-chan struct{}) {
	connects := make(chan struct{}, 100)
	s := pubsub.Open(client, pubsub.Config{
		Control: "control", Beat: 200 * time.Millisecond, Timeout: 200 * time.Millisecond,
		OnControl: func(string) {}, OnHeard: func(string) {}, OnConnect: func() { connects <- struct{}{} }, OnFailure: func() {}, OnDeaf: func(string) {}, OnGarbage: func() {},
	})
	t.Cleanup(s.Close)
	return s, connects
}

// wait returns w's news when they have what a test waits for.
func wait(t *testing.T, w *pubsub.Waiter, what string, come func(pubsub.News) bool) pubsub.News {
	t.Helper()
	limit := time.After(30 * time.Second)
	for {
		if n := w.Take(flight); come(n) {
			return n
		}
		select {
		case <-w.Wake:
		case <-limit:
			t.Fatalf("%s did not come", what)
		}
	}
}

func confirmed(n pubsub.News) bool { return n.Confirmed }
func came(n pubsub.News) bool      { return n.Came }
func lost(n pubsub.News) bool      { return !n.Confirmed }

// TestARealServersSubscriptionsComeBack ends the connection by CLIENT KILL, and by a
// server that hangs.
func TestARealServersSubscriptionsComeBack(t *testing.T) {
	server := redisrig.Start(t)
	client := server.Client()
	s, connects := open(t, client)
	<-connects
	w := s.Subscribe("c")
	defer w.Close()
	wait(t, w, "the confirmation", confirmed)
	publish := func() {
		t.Helper()
		if n, err := client.Publish(t.Context(), "c", message).Result(); n != 1 || err != nil {
			t.Errorf("%d connections got the message: %v", n, err)
		}
		if n := wait(t, w, "the message", came); string(n.Outcome.Payload) != "1" {
			t.Errorf("it came as %+v", n)
		}
	}
	publish()
	if err := client.Do(t.Context(), "CLIENT", "KILL", "TYPE", "pubsub").Err(); err != nil {
		t.Fatal(err)
	}
	<-connects
	wait(t, w, "the confirmation after CLIENT KILL", confirmed)
	publish()
	server.Freeze()
	wait(t, w, "the loss of a connection that hangs", lost)
	server.Thaw()
	<-connects
	wait(t, w, "the confirmation after the server hung", confirmed)
	publish()
}

// TestAChannelFollowsItsSlot moves a slot of a Redis Cluster to another master, on
// which the next outcome is published.
func TestAChannelFollowsItsSlot(t *testing.T) {
	cluster := redisrig.StartCluster(t)
	client := cluster.Client()
	s, connects := open(t, client)
	<-connects
	const channel = "ns:g:{k}"
	w := s.Subscribe(channel)
	defer w.Close()
	wait(t, w, "the confirmation", confirmed)
	to := cluster.OtherMaster(channel)
	cluster.MigrateSlot(channel, to)
	wait(t, w, "the confirmation of the new master", func(n pubsub.News) bool {
		counts, err := to.Client().PubSubShardNumSub(t.Context(), channel).Result()
		return err == nil && n.Confirmed && counts[channel] == 1
	})
	if err := client.SPublish(t.Context(), channel, message).Err(); err != nil {
		t.Fatal(err)
	}
	wait(t, w, "the message", came)
}

// TestCloseDoesNotWaitForADialThatObeysItsContext has a server that is never reached.
func TestCloseDoesNotWaitForADialThatObeysItsContext(t *testing.T) {
	dialling := make(chan struct{}, 100)
	var dials atomic.Int32
	client := redis.NewClient(&redis.Options{
		DialTimeout: time.Hour, MaxRetries: -1, DialerRetries: 1,
		Dialer: func(ctx context.Context, _, _ string) (net.Conn, error) {
			dials.Add(1)
			dialling <- struct{}{}
			<-ctx.Done()
			return nil, ctx.Err()
		},
	})
	defer client.Close()
	s, connects := open(t, client)
	<-dialling
	w := s.Subscribe("c")
	s.Close() // the test's limit is what it may take: it would be an hour
	if n := w.Take(flight); n.Confirmed || len(connects) > 0 {
		t.Errorf("without a server, a waiter learned %+v", n)
	}
	w.Close()
	if n := dials.Load(); n > 2 {
		t.Errorf("it dialled %d times", n)
	}
}
