package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAForgetTellsWhoHasAFlightOfTheKeyAndNobodyElse has three replicas. Messages of a
// server arrive in order: when the last one is there, all are.
func TestAForgetTellsWhoHasAFlightOfTheKeyAndNobodyElse(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	ctx := context.Background()
	var all [3]*replica[string]
	for i := range all {
		client := server.Client()
		all[i] = openCalm[string](t, client)
		t.Cleanup(func() { _ = all[i].Close(ctx) })
	}
	admin := server.Client()
	eventually(t, "all have subscribed", func() bool { return len(controlChannels("fleetcall", admin)) == len(all) })
	heard := admin.PSubscribe(ctx, "fleetcall:*")
	defer heard.Close()
	if _, err := heard.Receive(ctx); err != nil {
		t.Fatal(err)
	}

	release := make(chan struct{})
	theirs, own := holds(all[0], "theirs", release), holds(all[1], "own", release)
	follower := calling(ctx, all[2].Group, "theirs", value)
	waitJoined(t, server, "test", "theirs")
	leader := leaseOf(admin, "test", "theirs")[1:9]
	if err := all[1].Forget(ctx, "idle", "own", "theirs"); err != nil {
		t.Fatal(err)
	}
	admin.Publish(ctx, "fleetcall:end", "")
	got := map[string]int{} // the keys are forgotten in any order
	for {
		message, err := heard.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if message.Channel == "fleetcall:end" {
			break
		}
		got[message.Channel]++
	}
	want := map[string]int{"fleetcall:test:{idle}@0": 1, "fleetcall:test:{own}@0": 1, "fleetcall:control:" + leader + "@0": 1, "fleetcall:test:{theirs}@0": 1}
	if !maps.Equal(got, want) {
		t.Errorf("published on %v\nwant %v", got, want)
	}
	for _, g := range []*replica[string]{all[0], all[2]} {
		eventually(t, "a new caller starts a new flight", func() bool {
			brief, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			defer cancel()
			v, _, err := g.Do(brief, "theirs", value)
			return v == "v" && err == nil
		})
	}
	close(release)
	for _, answers := range []<-chan answer[string]{theirs, own, follower} {
		if a := comesBack(t, "who called before", answers); a.val != "old" || a.err != nil {
			t.Errorf("who called before: %+v", a)
		}
	}
}

// underWay is a replica whose join for the key "k" Redis has carried out, and whose reply is
// still on its way; and another one that forgets keys.
type underWay struct {
	*flapping
	reply chan struct{} // closed when the reply may come
}

// newUnderWay has a key that another leads, or nobody. Whose join the test holds has waited on
// the key's channel before, or not.
func newUnderWay(t *testing.T, led, subscribed bool) *underWay {
	server := redisrig.Start(t)
	u := &underWay{reply: make(chan struct{})}
	joined, holding := make(chan struct{}), false
	first := true
	u.flapping = newFlapping(t, 4*calm, []*redis.Client{server.Client()}, func(dial dialer) redis.UniversalClient {
		client := redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: dial})
		if first {
			client.AddHook(&tap{t: t, after: func(script string, _ []any, _ any, _ time.Duration) {
				if script == "join" && holding {
					holding = false
					close(joined)
					<-u.reply
				}
			}})
		}
		first = false
		return client
	})
	if subscribed {
		u.follow(t, server)
	}
	if led {
		old := holds(u.other, "k", u.release)
		t.Cleanup(func() {
			if a := comesBack(t, "the leader", old); a.val != "old" || a.err != nil {
				t.Errorf("the leader: %+v", a)
			}
		})
	}
	holding = true
	u.call("k")
	<-joined
	return u
}

// follow has the replica follow a flight of the key that ends: it stays subscribed.
func (u *underWay) follow(t *testing.T, server *redisrig.Server) {
	t.Helper()
	release := make(chan struct{})
	leader := holds(u.other, "k", release)
	follower := calling(context.Background(), u.g.Group, "k", value)
	waitJoined(t, server, "test", "k")
	eventually(t, "it is subscribed", func() bool { return subscribers("k", server.Client()) == 1 })
	close(release)
	comesBack(t, "the leader", leader)
	comesBack(t, "the follower", follower)
	eventually(t, "the flight has ended", func() bool { return leaseOf(server.Client(), "test", "k") == "" })
}

// startsAnew wants the callers to come to start a new flight, though the reply has not come.
func (u *underWay) startsAnew(t *testing.T) {
	t.Helper()
	eventually(t, "a new caller starts a new flight", func() bool {
		u.call("k")
		return u.running("k") == 1
	})
}

// ends wants no function to have run because the reply was late.
func (u *underWay) ends(t *testing.T) {
	t.Helper()
	u.end()
	if n := u.g.Stats().Distributed.Fallbacks; n != 0 {
		t.Errorf("%d functions ran without Redis", n)
	}
}

// These are about a Forget that Redis carries out after a join, before the reply to the join
// has been read.

func TestAForgetIsHeardByALeaderThatDoesNotKnowYetThatItLeads(t *testing.T) {
	t.Parallel()
	u := newUnderWay(t, false, false)
	if err := u.other.Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	u.startsAnew(t)
	close(u.reply)
	u.ends(t)
	if n := u.running("k"); n != 2 {
		t.Errorf("%d executions, not one for the flight before and one for that after", n)
	}
}

func TestAForgetIsHeardByAFollowerThatDoesNotKnowYetThatItFollows(t *testing.T) {
	t.Parallel()
	u := newUnderWay(t, true, true)
	if err := u.other.Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	u.startsAnew(t)
	close(u.reply)
	u.ends(t)
}

func TestAFollowerThatWasNotSubscribedLearnsByItsPeekThatItsKeyWasForgotten(t *testing.T) {
	t.Parallel()
	u := newUnderWay(t, true, false)
	if err := u.other.Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	close(u.reply)
	u.startsAnew(t)
	u.ends(t)
}

// TestAForgetThatWasMissedIsHonouredThoughTheReplyToTheJoinComesLater has the control channel
// confirmed before the replica knows that it leads.
func TestAForgetThatWasMissedIsHonouredThoughTheReplyToTheJoinComesLater(t *testing.T) {
	t.Parallel()
	u := newUnderWay(t, false, false)
	u.cut()
	if err := u.other.Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	u.door.Unlock()
	eventually(t, "both are subscribed", func() bool { return u.subscribed() == 2 })
	for _, channel := range controlChannels("fleetcall", u.nodes...) {
		u.nodes[0].Publish(context.Background(), channel, "garbage")
	}
	eventually(t, "it has been told so", func() bool { return u.g.Stats().Distributed.Garbage == 1 })
	close(u.reply)
	u.splits("k")
	u.ends(t)
}

// TestALeaderThatWasHeldUpIsToldThatItsKeyWasForgotten has a leader whose lease has run out,
// and whose key nobody leads since.
func TestALeaderThatWasHeldUpIsToldThatItsKeyWasForgotten(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	f := newFlapping(t, 4*calm, []*redis.Client{server.Client()}, func(dial dialer) redis.UniversalClient {
		return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: dial})
	})
	ctx, admin := context.Background(), server.Client()
	f.call("k")
	eventually(t, "its function runs", func() bool { return f.running("k") == 1 })
	flight := leaseOf(admin, "test", "k")[1:23]
	if err := errors.Join(admin.Del(ctx, "fleetcall:test:{k}:lease").Err(), admin.HSet(ctx, "fleetcall:test:{k}:attempts", flight, 1).Err()); err != nil {
		t.Fatal(err)
	}
	if err := f.other.Forget(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	f.splits("k")
	f.end()
}

// TestAFlightWithoutALeaseHearsThatItsKeyWasForgotten has a key whose outcomes cannot be
// shared: each replica runs its own function, of which Redis knows nothing.
func TestAFlightWithoutALeaseHearsThatItsKeyWasForgotten(t *testing.T) {
	for _, of := range []string{"the other replica", "its own replica"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			server := redisrig.Start(t)
			f := newFlapping(t, 4*calm, []*redis.Client{server.Client()}, func(dial dialer) redis.UniversalClient {
				return redis.NewClient(&redis.Options{Addr: server.Addr, Dialer: dial})
			})
			ctx, admin := context.Background(), server.Client()
			mark := func() { admin.Set(ctx, "fleetcall:test:{k}:lease", "!too large", time.Hour) }
			mark()
			first := f.call("k")
			eventually(t, "its function runs, and it listens", func() bool {
				return f.running("k") == 1 && subscribers("k", admin) == 1
			})
			forgets := f.other
			if of == "its own replica" {
				forgets = f.g
			}
			if err := forgets.Forget(ctx, "k"); err != nil {
				t.Fatal(err)
			}
			mark()
			f.splits("k")
			if forgets == f.g {
				f.ignoresItsOwnMessage(admin)
			}
			f.end()
			if a := <-first; a != (answer[string]{"run 1", coalesce.Fallback, nil}) {
				t.Errorf("who called before: %+v", a)
			}
		})
	}
}

// ignoresItsOwnMessage has the message of the replica's own Forget of "k" arrive late. Messages
// arrive in order: when the garbage after it is counted, it is there.
func (f *flapping) ignoresItsOwnMessage(admin *redis.Client) {
	f.t.Helper()
	ctx := context.Background()
	f.call("led")
	eventually(f.t, "its function runs", func() bool { return f.running("led") == 1 })
	message := wire.Outcome{Kind: wire.KindForgotten, Flight: leaseOf(admin, "test", "led")[1:23]}
	admin.Publish(ctx, "fleetcall:test:{k}@0", message.Encode())
	admin.Publish(ctx, "fleetcall:test:{k}@0", "garbage")
	eventually(f.t, "it has come", func() bool { return f.g.Stats().Distributed.Garbage == 1 })
	f.call("k")
	if n := f.running("k"); n != 2 {
		f.t.Errorf("a replica's own message split its new flight: %d executions", n)
	}
}

// TestAJoinThatComesTwiceTakesNoLeaseForAFlightThatWasForgotten has the client send a join
// again, and a Forget in between.
func TestAJoinThatComesTwiceTakesNoLeaseForAFlightThatWasForgotten(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	admin, ctx := server.Client(), context.Background()
	var flights []string
	g := wiredGroup[string](&tap{t: t, server: server, before: func(script string, args []any) error {
		if script == "join" {
			_, flight, _ := strings.Cut(fmt.Sprint(args[5]), ":over:")
			if slices.Contains(flights, flight) {
				return nil // Redis had not loaded the script
			}
			if flights = append(flights, flight); len(flights) == 1 {
				due := fmt.Sprint(time.Now().Add(time.Hour).UnixMilli(), " 00000")
				admin.HSet(ctx, "fleetcall:test:{k}:attempts", flight, due)
			}
		}
		return nil
	}}, distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(4*calm), distributed.WithFlightTimeout(10*calm))
	v, role, err := g.Do(ctx, "k", func(context.Context) (string, error) {
		return leaseOf(admin, "test", "k")[1:23], nil
	})
	if role != coalesce.Leader || err != nil || len(flights) != 2 || v != flights[1] || v == flights[0] {
		t.Errorf("it joined as %q, and led %q, %v, %v", flights, v, role, err)
	}
}
