package distributed_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// foreignFlight is the id of a flight whose leader is this test.
const foreignFlight = "foreign-flight-22chars"

// noFinish is the place of an outcome's finish that is not known.
const noFinish = "\x00\x00\x00\x00\x00\x00\x00\x00"

// foreignLease makes key led by a replica that this test plays.
func (f *fleet[V]) foreignLease(key string, ttl time.Duration) {
	f.t.Helper()
	f.set("fleetcall:{"+key+"}:lease", "0"+foreignFlight+" 1 0 elsewhere", ttl)
}

func (f *fleet[V]) set(key, value string, ttl time.Duration) {
	f.t.Helper()
	if err := f.client().Set(context.Background(), key, value, ttl).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// foreignOutcome is a value as the replica that led foreignFlight would send it.
func foreignOutcome(codec, payload string) string { return foreignOutcomeAt(0, codec, payload) }

// foreignOutcomeAt is the same, of a flight that finished then, in µs of Redis'
// clock.
func foreignOutcomeAt(finished uint64, codec, payload string) string {
	return "\x01\x01" + foreignFlight + string(binary.BigEndian.AppendUint64(nil, finished)) + string(rune(len(codec))) + codec + payload
}

// commands returns how often each command was sent by clients; what scripts
// call has other names.
func (f *fleet[V]) commands() map[string]int {
	f.t.Helper()
	info, err := f.client().Info(context.Background(), "commandstats").Result()
	if err != nil {
		f.t.Fatal(err)
	}
	n := map[string]int{}
	for _, m := range regexp.MustCompile(`cmdstat_(\S+?):calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		switch m[1] {
		case "evalsha", "eval", "subscribe", "unsubscribe", "ssubscribe", "script|load", "ping":
			n[m[1]], _ = strconv.Atoi(m[2])
		}
	}
	return n
}

func (f *fleet[V]) resetCommands() {
	f.t.Helper()
	if err := f.client().ConfigResetStat(context.Background()).Err(); err != nil {
		f.t.Fatal(err)
	}
}

// quiet waits until no replica has anything under way with Redis.
func (f *fleet[V]) quiet() {
	f.t.Helper()
	client := f.client()
	eventually(f.t, "every lease is released", func() bool {
		keys, err := client.Keys(context.Background(), "fleetcall:*:lease").Result()
		return err == nil && len(keys) == 0
	})
}

// scriptsLoaded waits for what every replica sends when it has connected.
func (f *fleet[V]) scriptsLoaded() {
	f.t.Helper()
	eventually(f.t, "scripts are loaded", func() bool {
		return f.commands()["script|load"] >= 7*len(f.groups)
	})
}

func TestAFlightCostsTheProtocolsCommandsAndNoMore(t *testing.T) {
	f := newFleet[string](t, 3)
	f.scriptsLoaded()
	fly := func(subscribed int) {
		answers := f.overlapping(20, "k", func(context.Context) (string, error) {
			f.waitFollowers("k", subscribed)
			eventually(t, "cold followers have peeked", func() bool { return f.commands()["evalsha"] >= 3+f.commands()["subscribe"] })
			return "v", nil
		})
		if n := roles(answers); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
			t.Fatalf("roles %v", n)
		}
		f.quiet()
	}

	f.resetCommands()
	fly(2)
	cold := f.commands()
	if cold["evalsha"] != 2+2*2 || cold["subscribe"] != 2 || len(cold) != 2 {
		t.Errorf("cold key: want 6 scripts (2 of the leader, join and peek of each follower) and 2 subscriptions; sent %v", cold)
	}

	// The leader of a hot key may be one that was a follower: fly until all
	// three have followed and are subscribed.
	for f.numSub("k") < 3 {
		fly(2)
	}
	f.resetCommands()
	fly(3)
	hot := f.commands()
	if hot["evalsha"] != 4 || len(hot) != 1 {
		t.Errorf("hot key: want 4 scripts (2 of the leader, join of each follower); sent %v", hot)
	}
}

func (f *fleet[V]) numSub(key string) int {
	f.t.Helper()
	channel := "fleetcall:{" + key + "}"
	n, err := f.client().PubSubNumSub(context.Background(), channel).Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return int(n[channel])
}

func TestACallerThatNobodyJoinsCostsTwoCommandsAndLeavesNothing(t *testing.T) {
	f := newFleet[string](t, 1)
	f.scriptsLoaded()
	f.resetCommands()
	for i := range 10 {
		if _, role, err := f.groups[0].Do(context.Background(), fmt.Sprint("k", i), func(context.Context) (string, error) { return "v", nil }); role != coalesce.Leader || err != nil {
			t.Fatal(role, err)
		}
	}
	f.quiet()
	if n := f.commands(); n["evalsha"] != 20 || len(n) != 1 {
		t.Errorf("sent %v, want 20 scripts", n)
	}
	if keys := f.client().Keys(context.Background(), "*").Val(); len(keys) != 0 {
		t.Errorf("left in Redis: %q", keys)
	}
}

func TestACallerAfterTheEndNeverGetsTheEndedFlight(t *testing.T) {
	f := newFleet[int64](t, 2)
	var runs atomic.Int64
	for i := range int64(500) {
		// The same replica again at once: Redis may not know yet that the
		// flight before has ended.
		v, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (int64, error) { return runs.Add(1), nil })
		if err != nil || v != i+1 {
			t.Fatalf("call %d got the result of call %d: %v", i+1, v, err)
		}
	}
}

func TestAFollowerTakesOverWhenTheLeaseRunsOut(t *testing.T) {
	f := newFleet[string](t, 2)
	f.foreignLease("k", 200*time.Millisecond)
	var runs atomic.Int32
	answers := f.herd(context.Background(), 5, "k", func(context.Context) (string, error) {
		runs.Add(1)
		time.Sleep(10 * time.Millisecond) // the work, so that the other may join
		return "mine", nil
	})
	for _, a := range answers {
		if a.val != "mine" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	takeovers := f.groups[0].Stats().Distributed.Takeovers + f.groups[1].Stats().Distributed.Takeovers
	// Both saw the lease run out; the second may come when the first is done.
	if n := runs.Load(); n < 1 || n > 2 || takeovers != uint64(n) {
		t.Errorf("%d executions, %d takeovers", n, takeovers)
	}
}

func TestAFollowerTakesOverAtOnceWhenTheLeaderAbandons(t *testing.T) {
	f := newFleet[string](t, 1)
	f.foreignLease("k", time.Hour)
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "mine", nil })
		done <- a
	}()
	f.waitFollowers("k", 1)
	f.client().Del(context.Background(), "fleetcall:{k}:lease")
	f.client().Publish(context.Background(), "fleetcall:{k}", "\x01\x04"+foreignFlight+noFinish+"\x00")
	if a := <-done; a.val != "mine" || a.role != coalesce.Leader || a.err != nil {
		t.Errorf("%+v", a)
	}
}

func TestAKeyWhoseLeadersDieIsPoisonedForAWhile(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxTakeovers(1))
	f.set("fleetcall:{k}:attempts", "1", time.Minute) // one leader died
	led := func() error {
		_, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "v", nil })
		f.quiet()
		return err
	}
	if err := led(); err != nil {
		t.Errorf("the one takeover that is allowed: %v", err)
	}
	if err := led(); err != nil {
		t.Errorf("an outcome must clear the attempts: %v", err)
	}
	f.set("fleetcall:{k}:attempts", "2", 500*time.Millisecond)
	if err := led(); !errors.Is(err, coalesce.ErrPoisoned) {
		t.Errorf("after two deaths: %v", err)
	}
	eventually(t, "the key recovers though it is asked for all the time", func() bool { return led() == nil })
}

func TestForgettingAKeyAgainAndAgainDoesNotPoisonIt(t *testing.T) {
	f := newFleet[string](t, 1)
	release := make(chan struct{})
	var flights sync.WaitGroup
	for i := range 6 {
		started := make(chan struct{})
		ended := make(chan error, 1)
		flights.Go(func() {
			_, _, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) {
				close(started)
				<-release
				return "v", nil
			})
			ended <- err
		})
		select {
		case <-started:
		case err := <-ended:
			t.Errorf("flight %d: %v", i, err)
		}
		if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
			t.Fatal(err)
		}
	}
	close(release)
	flights.Wait()
}

func TestAForgottenFunctionIsCancelledWhenItsCallersLeave(t *testing.T) {
	f := newFleet[string](t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	started, cancelled := make(chan struct{}), make(chan struct{})
	go f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		close(started)
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	})
	<-started
	if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-cancelled:
	case <-time.After(10 * time.Second):
		t.Error("the function runs on for nobody")
	}
}

type brokenError struct{ message string }

func (e *brokenError) Error() string { return e.message } // panics when e is nil

func TestAnErrorThatPanicsHurtsNobodyElse(t *testing.T) {
	f := newFleet[string](t, 2)
	answers := f.overlapping(1, "k", func(context.Context) (string, error) {
		var e *brokenError
		return "", e
	})
	for _, a := range answers {
		if a.err == nil {
			t.Errorf("%+v", a)
		}
	}
	f.quiet()
}

func TestAValueOfAnotherCodecDoesNotTurnCoalescingOffWithMaxAge(t *testing.T) {
	f := newFleet[string](t, 1, distributed.WithMaxAge(time.Hour))
	f.join(distributed.WithMaxAge(time.Hour), distributed.WithCodec(otherCodec{coalesce.JSON}))
	f.waitSubscribed(2)
	var runs atomic.Int32
	for _, g := range f.groups {
		for range 3 {
			if _, _, err := g.Do(context.Background(), "k", func(context.Context) (string, error) {
				runs.Add(1)
				return "v", nil
			}); err != nil {
				t.Error(err)
			}
			f.quiet()
		}
	}
	if n := runs.Load(); n != 2 {
		t.Errorf("%d executions, want one for each codec", n)
	}
}

func TestARingIsRefused(t *testing.T) {
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	if _, err := distributed.New[string](ring); err == nil {
		t.Error("a Ring is accepted")
	}
}

func TestAMissedMessageIsFetchedAndNotGivenToThoseWhoCameLater(t *testing.T) {
	f := newFleet[string](t, 1)
	g := f.groups[0]
	f.foreignLease("k", time.Second)
	own := func(context.Context) (string, error) { return "new", nil }
	early := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", own)
		early <- a
	}()
	f.waitFollowers("k", 1)
	// The flight ends, its message is lost.
	now := f.client().Time(context.Background()).Val()
	ctx := context.Background()
	f.client().HSet(ctx, "fleetcall:{k}:result:"+foreignFlight, "finished", now.UnixMicro(), "outcome", foreignOutcome("json", `"old"`))
	time.Sleep(20 * time.Millisecond) // the late caller's distance from the end
	late := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = g.Do(context.Background(), "k", own)
		late <- a
	}()
	if a := <-early; a.val != "old" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("the caller of the flight: %+v", a)
	}
	// The test's flight left its lease; let go of it.
	f.client().Del(ctx, "fleetcall:{k}:lease")
	if a := <-late; a.val != "new" || a.err != nil {
		t.Errorf("the caller after the flight: %+v", a)
	}
}

func TestForgetStartsANewFlightOnEveryReplicaAndLeavesTheOldOneToItsCallers(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithLeaseTTL(300*time.Millisecond))
	release := make(chan struct{})
	var old sync.WaitGroup
	answers := make([]answer[string], 2)
	for i, g := range f.groups {
		old.Go(func() {
			a := &answers[i]
			a.val, a.role, a.err = g.Do(context.Background(), "k", func(context.Context) (string, error) {
				<-release
				return "old", nil
			})
		})
	}
	f.waitFollowers("k", 1)
	if err := f.groups[0].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	fresh := func(context.Context) (string, error) { return "new", nil }
	if v, role, err := f.groups[0].Do(context.Background(), "k", fresh); v != "new" || role != coalesce.Leader || err != nil {
		t.Errorf("on the replica that forgot: %q %v %v", v, role, err)
	}
	eventually(t, "the other replica has the notice", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		v, _, err := f.groups[1].Do(ctx, "k", fresh)
		return err == nil && v == "new"
	})
	time.Sleep(time.Second) // the old flight outlives its lease: it must be renewed, detached as it is
	close(release)
	old.Wait()
	for _, a := range answers {
		if a.val != "old" || a.err != nil {
			t.Errorf("a caller of the old flight: %+v", a)
		}
	}
	for i, g := range f.groups {
		if s := g.Stats().Distributed; s.LeaseLost != 0 || s.Takeovers != 0 {
			t.Errorf("replica %d: %+v", i, s)
		}
	}
}

func TestTheFunctionIsCancelledWhenItsLastCallerLeavesAndNobodyJoined(t *testing.T) {
	f := newFleet[string](t, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancelled := make(chan struct{})
	_, _, err := f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		cancel()
		<-ctx.Done()
		close(cancelled)
		return "", ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-cancelled
	f.quiet()
}

func TestTheFunctionGoesOnForOtherReplicasWhenItsOwnCallersLeave(t *testing.T) {
	f := newFleet[string](t, 2)
	ctx, cancel := context.WithCancel(context.Background())
	started, release := make(chan struct{}), make(chan struct{})
	go f.groups[0].Do(ctx, "k", func(ctx context.Context) (string, error) {
		close(started)
		select {
		case <-release:
			return "v", nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	})
	<-started
	done := make(chan answer[string], 1)
	go func() {
		var a answer[string]
		a.val, a.role, a.err = f.groups[1].Do(context.Background(), "k", func(context.Context) (string, error) { return "second execution", nil })
		done <- a
	}()
	f.waitFollowers("k", 1)
	cancel()
	time.Sleep(50 * time.Millisecond) // time for a wrong cancellation to arrive
	close(release)
	if a := <-done; a.val != "v" || a.role != coalesce.RemoteFollower || a.err != nil {
		t.Errorf("%+v", a)
	}
}

func TestAFunctionThatIgnoresItsContextDoesNotKeepItsCallersPastTheFlightTimeout(t *testing.T) {
	f := newFleet[string](t, 2, distributed.WithFlightTimeout(200*time.Millisecond))
	release := make(chan struct{})
	defer close(release)
	answers := f.herd(context.Background(), 50, "k", func(context.Context) (string, error) {
		<-release
		return "", nil
	})
	for _, a := range answers {
		if !errors.Is(a.err, coalesce.ErrFlightTimeout) || !errors.Is(a.err, context.DeadlineExceeded) {
			t.Errorf("%+v", a)
		}
	}
}

func TestMaxAgeServesAFinishedValueUntilItIsTooOldOrForgotten(t *testing.T) {
	f := newFleet[int64](t, 2, distributed.WithMaxAge(time.Hour))
	var runs atomic.Int64
	do := func(replica int) (int64, coalesce.Role) {
		t.Helper()
		v, role, err := f.groups[replica].Do(context.Background(), "k", func(context.Context) (int64, error) { return runs.Add(1), nil })
		if err != nil {
			t.Fatal(err)
		}
		return v, role
	}
	do(0)
	f.quiet()
	for replica := range 2 {
		if v, role := do(replica); v != 1 || role != coalesce.Cached {
			t.Errorf("replica %d: %d as %v", replica, v, role)
		}
	}
	if err := f.groups[1].Forget(context.Background(), "k"); err != nil {
		t.Fatal(err)
	}
	if v, role := do(0); v != 2 || role != coalesce.Leader {
		t.Errorf("after Forget: %d as %v", v, role)
	}
	f.quiet()
	// Redis' clock says when it finished: make it long ago.
	keys := f.client().Keys(context.Background(), "fleetcall:{k}:result:*").Val()
	if len(keys) != 2 {
		t.Fatalf("results kept: %q", keys)
	}
	for _, key := range keys {
		f.client().HSet(context.Background(), key, "earliest", 1)
	}
	if v, role := do(1); v != 3 || role != coalesce.Leader {
		t.Errorf("past MaxAge: %d as %v", v, role)
	}
}

// fetchSlack is longer before a function's end than a command takes on its way:
// what is fetched is known to have ended to that, and those who came later get
// a flight of their own.
const fetchSlack = 100 * time.Millisecond

func TestOutcomesOfEverySizeArrive(t *testing.T) {
	const inline, payload = 1000, 100_000
	f := newFleet[[]byte](t, 2, distributed.WithInlineLimit(inline), distributed.WithPayloadLimit(payload))
	for _, size := range []int{0, 1, inline - 1, inline, inline + 1, payload - 1, payload, payload + 1} {
		want := bytes.Repeat([]byte{0xff}, size)
		var runs atomic.Int32
		key := fmt.Sprint("size ", size)
		answers := f.overlapping(3, key, func(context.Context) ([]byte, error) {
			runs.Add(1)
			if runs.Load() == 1 {
				f.waitFollowers(key, 1)
			}
			time.Sleep(fetchSlack)
			return want, nil
		})
		for _, a := range answers {
			if a.err != nil || !bytes.Equal(a.val, want) {
				t.Errorf("size %d: %d bytes, %v", size, len(a.val), a.err)
			}
		}
		wantRuns, wantRole := int32(1), coalesce.RemoteFollower
		if size > payload {
			wantRuns, wantRole = 2, coalesce.Fallback
		}
		if runs.Load() != wantRuns || roles(answers)[wantRole] != 1 {
			t.Errorf("size %d: %d executions, roles %v", size, runs.Load(), roles(answers))
		}
	}
}

type otherCodec struct{ coalesce.Codec }

func (otherCodec) Name() string { return "other" }

func TestARollingChangeOfTheCodecBreaksNoCall(t *testing.T) {
	f := newFleet[string](t, 1)
	f.join(distributed.WithCodec(otherCodec{coalesce.JSON}))
	f.waitSubscribed(2)
	var runs atomic.Int32
	answers := f.overlapping(2, "k", func(context.Context) (string, error) {
		if runs.Add(1) == 1 {
			f.waitFollowers("k", 1)
		}
		return "v", nil
	})
	for _, a := range answers {
		if a.val != "v" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if runs.Load() != 2 || roles(answers)[coalesce.Fallback] != 1 {
		t.Errorf("%d executions, roles %v", runs.Load(), roles(answers))
	}
}

func TestGarbageInEveryKeyAndChannelHurtsNobody(t *testing.T) {
	f := newFleet[string](t, 2)
	ctx := context.Background()
	client := f.client()
	for i, garbage := range []string{"", "garbage", strings.Repeat("x", 100), "\x01\x01", "\x07\x01" + foreignFlight + "\x00", "\x00\x00" + foreignFlight + "\x00"} {
		for _, name := range []string{"lease", "attempts", "latest"} {
			for _, wrongType := range []bool{false, true} {
				key := fmt.Sprintf("k%d%s%v", i, name, wrongType)
				redisKey := "fleetcall:{" + key + "}:" + name
				if wrongType {
					client.LPush(ctx, redisKey, garbage)
				} else {
					client.Set(ctx, redisKey, garbage, 0)
				}
				var runs atomic.Int32
				answers := f.overlapping(3, key, func(context.Context) (string, error) {
					runs.Add(1)
					f.waitFollowers(key, 1)
					client.Publish(ctx, "fleetcall:{"+key+"}", garbage)
					client.Publish(ctx, "fleetcall:control", garbage)
					return "v", nil
				})
				for _, a := range answers {
					if a.val != "v" || a.err != nil {
						t.Errorf("%s: %+v", key, a)
					}
				}
				if runs.Load() != 1 {
					t.Errorf("%s: %d executions", key, runs.Load())
				}
			}
		}
	}
	if f.groups[0].Stats().Distributed.Garbage == 0 {
		t.Error("garbage is not counted")
	}
}

func TestKeysOfAnyBytesAndLengthAreTheirOwn(t *testing.T) {
	f := newFleet[[]byte](t, 2)
	var every []byte
	for b := range 256 {
		every = append(every, byte(b))
	}
	for _, key := range []string{"", " ", "a\nb", "{", "}", "{}", "}{", "a}b", string(every), strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("y", 1<<20)} {
		var runs atomic.Int32
		answers := f.overlapping(2, key, func(context.Context) ([]byte, error) {
			runs.Add(1)
			time.Sleep(fetchSlack)
			return []byte(key), nil
		})
		for _, a := range answers {
			if a.err != nil || string(a.val) != key {
				t.Errorf("%.20q: %+v", key, a)
			}
		}
		if runs.Load() != 1 {
			t.Errorf("%.20q: %d executions", key, runs.Load())
		}
	}
}

func TestScriptsAreLoadedAgainWhenRedisForgotThem(t *testing.T) {
	f := newFleet[string](t, 1)
	f.client().ScriptFlush(context.Background())
	if _, role, err := f.groups[0].Do(context.Background(), "k", func(context.Context) (string, error) { return "v", nil }); role != coalesce.Leader || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if s := f.groups[0].Stats().Distributed; s.RedisErrors != 0 {
		t.Errorf("%+v", s)
	}
}

func TestNewNamesTheOptionThatIsBad(t *testing.T) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	for name, opt := range map[string]distributed.Option{
		"WithNamespace":     distributed.WithNamespace("a{b"),
		"WithLeaseTTL":      distributed.WithLeaseTTL(0),
		"WithFlightTimeout": distributed.WithFlightTimeout(-1),
		"WithMaxAge":        distributed.WithMaxAge(-1),
		"WithRedisTimeout":  distributed.WithRedisTimeout(time.Microsecond),
		"WithMaxTakeovers":  distributed.WithMaxTakeovers(-1),
		"WithCodec":         distributed.WithCodec(nil),
		"WithInlineLimit":   distributed.WithInlineLimit(-1),
		"WithPayloadLimit":  distributed.WithPayloadLimit(0),
		"WithLogger":        distributed.WithLogger(nil),
		"WithReplicaID":     distributed.WithReplicaID(""),
	} {
		if _, err := distributed.New[string](client, opt); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := distributed.New[string](nil); err == nil {
		t.Error("a nil client is accepted")
	}
}
