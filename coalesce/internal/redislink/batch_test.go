package redislink

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// TestCommandsThatWaitAreSentInOneRoundTrip has more of them than one may have.
func TestCommandsThatWaitAreSentInOneRoundTrip(t *testing.T) {
	answer, begun, release := hold()
	l, fake := newLink(t, Config{}, answer)
	defer l.Close()
	if l.Busy("k") {
		t.Error("it is busy before anything is sent")
	}
	var sent []request
	for range maxInFlight {
		sent = append(sent, send(l, join("busy")))
		<-begun
	}
	if !l.Busy("k") {
		t.Errorf("it is not busy with %d round trips under way", maxInFlight)
	}
	for i := range maxBatch + 1 {
		sent = append(sent, send(l, join(strconv.Itoa(i))))
	}
	release()
	for _, r := range sent {
		<-r.answered
		if reply, err := l.Result(r.Request); reply != int64(1) || err != nil {
			t.Fatalf("the reply is %v, %v", reply, err)
		}
	}
	sizes := fake.sizes()
	slices.Sort(sizes)
	if want := append(slices.Repeat([]int{1}, maxInFlight+1), maxBatch); !slices.Equal(sizes, want) {
		t.Errorf("the round trips had %v commands, not %v", sizes, want)
	}
}

// TestEachCommandOfABatchHasItsOwnAnswer mixes replies, errors, and a script that
// Redis does not have.
func TestEachCommandOfABatchHasItsOwnAnswer(t *testing.T) {
	answer, begun, release := hold()
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
		if trip[0].Args()[3] == lease("busy") {
			answer(trip)
			return
		}
		for _, cmd := range trip {
			switch {
			case cmd.Args()[3] == lease("fails"):
				cmd.SetErr(redisError("OOM command not allowed"))
			case cmd.Args()[3] == lease("unloaded") && cmd.Args()[0] == "evalsha":
				cmd.SetErr(redisError("NOSCRIPT No matching script"))
			default:
				cmd.SetVal(cmd.Args()[3])
			}
		}
	})
	defer l.Close()
	for range maxInFlight {
		send(l, join("busy"))
		<-begun
	}
	works, fails, unloaded := send(l, join("works")), send(l, join("fails")), send(l, join("unloaded"))
	release()
	<-works.answered
	<-fails.answered
	<-unloaded.answered
	if reply, err := works.Reply(); reply != lease("works") || err != nil {
		t.Errorf("one that works: %v, %v", reply, err)
	}
	if _, err := fails.Reply(); err == nil || FailureKind(err) != "oom" {
		t.Errorf("one that fails: %v", err)
	}
	if reply, err := unloaded.Reply(); reply != lease("unloaded") || err != nil {
		t.Errorf("one whose script was not loaded: %v, %v", reply, err)
	}
	if !slices.Contains(fake.sizes(), 3) {
		t.Errorf("the three were not sent together: %v", fake.sizes())
	}
}

// TestAScriptThatRedisDoesNotHaveIsSentWithItsSource has NOSCRIPT answered by EVAL,
// once, with the same keys and arguments.
func TestAScriptThatRedisDoesNotHaveIsSentWithItsSource(t *testing.T) {
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) { trip[0].SetErr(redisError("NOSCRIPT No matching script")) })
	defer l.Close()
	_, err := l.Do(context.Background(), join("k"))
	if err == nil || FailureKind(err) != "reply" {
		t.Errorf("a server that never has a script: %v", err)
	}
	sent := fake.commands()
	if len(sent) != 2 {
		t.Fatalf("%d commands", len(sent))
	}
	sha, source := sent[0].Args(), sent[1].Args()
	if sha[0] != "evalsha" || source[0] != "eval" || !strings.HasPrefix(source[1].(string), "-- join:") {
		t.Errorf("%v was followed by %v", sha[:2], source[:2])
	}
	if fmt.Sprint(sha[2:]) != fmt.Sprint(source[2:]) {
		t.Errorf("the arguments %v became %v", sha[2:], source[2:])
	}
}

// TestALargeCommandHoldsUpNoOther sends it by itself, though every turn is taken.
func TestALargeCommandHoldsUpNoOther(t *testing.T) {
	answer, begun, release := hold()
	l, fake := newLink(t, Config{}, answer)
	defer l.Close()
	for range maxInFlight {
		send(l, join("busy"))
		<-begun
	}
	small, edge := send(l, join("small")), send(l, finish("edge", maxBatchedBytes))
	large := send(l, finish("large", maxBatchedBytes+1))
	<-begun // it did not wait
	release()
	<-small.answered
	<-edge.answered
	<-large.answered
	sizes := fake.sizes()
	slices.Sort(sizes)
	if want := []int{1, 1, 1, 2}; !slices.Equal(sizes, want) {
		t.Errorf("the round trips had %v commands, not %v", sizes, want)
	}
}

// TestSendHereUsesTheCallersGoroutineUnlessOthersAreBeforeIt looks whether Then was
// called: that is for those who are not answered at once.
func TestSendHereUsesTheCallersGoroutineUnlessOthersAreBeforeIt(t *testing.T) {
	answer, begun, release := hold()
	held := false
	l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) {
		if held {
			answer(trip)
		} else {
			succeed(trip)
		}
	})
	defer l.Close()
	for _, command := range []protocol.Command{join("k"), finish("k", maxBatchedBytes+1)} {
		r := newRequest(l, command)
		if !l.SendHere(r.Request) || r.taken() {
			t.Errorf("%s was not answered at once, or twice: %v", command.Step(), r.taken())
		}
		if reply, err := r.Reply(); reply != int64(1) || err != nil {
			t.Errorf("%s: %v, %v", command.Step(), reply, err)
		}
	}
	held = true
	for range maxInFlight {
		send(l, join("busy"))
		<-begun
	}
	r := newRequest(l, join("k"))
	if l.SendHere(r.Request) || r.taken() {
		t.Error("it did not wait its turn")
	}
	release()
	<-r.answered
}

// TestAPanicOfTheClientIsTheErrorOfItsCommands has a hook of the client panic: for
// one command, for a batch, and for a script that is sent again.
func TestAPanicOfTheClientIsTheErrorOfItsCommands(t *testing.T) {
	answer, begun, release := hold()
	l, _ := newLink(t, Config{}, func(trip []*redis.Cmd) {
		switch cmd := trip[0]; {
		case cmd.Args()[3] == lease("busy"):
			answer(trip)
		case cmd.Args()[3] == lease("unloaded") && cmd.Args()[0] == "evalsha":
			cmd.SetErr(redisError("NOSCRIPT No matching script"))
		case isProbe(cmd):
			succeed(trip)
		default:
			panic("hook's fault")
		}
	})
	defer l.Close()
	for _, key := range []string{"k", "unloaded"} {
		if _, err := l.Do(context.Background(), join(key)); err == nil || !strings.Contains(err.Error(), "hook's fault") {
			t.Errorf("%s: %v", key, err)
		}
	}
	for range maxInFlight {
		send(l, join("busy"))
		<-begun
	}
	batch := []request{send(l, join("a")), send(l, join("b"))}
	release()
	for _, r := range batch {
		<-r.answered
		if _, err := r.Reply(); err == nil || !strings.Contains(err.Error(), "hook's fault") {
			t.Errorf("one of a batch: %v", err)
		}
	}
}

// TestACommandsContextHasItsValuesAndNotItsEnd cancels it before it is sent: the
// lease may be taken all the same, and somebody must see the reply.
func TestACommandsContextHasItsValuesAndNotItsEnd(t *testing.T) {
	type key struct{}
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	cancel()
	l, fake := newLink(t, Config{}, succeed)
	defer l.Close()
	if reply, err := l.Do(ctx, join("k")); reply != int64(1) || err != nil {
		t.Fatalf("%v, %v", reply, err)
	}
	got := fake.ctx
	deadline, ok := got.Deadline()
	if got.Value(key{}) != "value" || got.Err() != nil || !ok || time.Until(deadline) > patience*timeout {
		t.Errorf("value %v, error %v, deadline %v %v", got.Value(key{}), got.Err(), deadline, ok)
	}
}

// redisError is an error that Redis replied.
type redisError string

func (e redisError) Error() string { return string(e) }

// RedisError makes redisError a redis.Error.
func (redisError) RedisError() {}

// TestAPipelineThatLacksAScriptBringsItOnce has Redis have none: the source of each goes to
// it once, and the other commands after it.
func TestAPipelineThatLacksAScriptBringsItOnce(t *testing.T) {
	answer, begun, release := hold()
	has := map[string]bool{}
	l, fake := newLink(t, Config{}, func(trip []*redis.Cmd) {
		if trip[0].Args()[3] == lease("busy") {
			answer(trip)
			return
		}
		for _, cmd := range trip {
			script := cmd.Args()[1].(string)
			if cmd.Args()[0] == "eval" {
				has[redis.NewScript(script).Hash()] = true
			}
			if cmd.Args()[0] == "eval" || has[script] {
				cmd.SetVal(cmd.Args()[3])
			} else {
				cmd.SetErr(redisError("NOSCRIPT No matching script"))
			}
		}
	})
	defer l.Close()
	for range maxInFlight {
		send(l, join("busy"))
		<-begun
	}
	var sent []request
	for i := range 50 {
		sent = append(sent, send(l, join(strconv.Itoa(i))), send(l, finish(strconv.Itoa(i), 10)))
	}
	release()
	for i, r := range sent {
		<-r.answered
		if reply, err := r.Reply(); reply != lease(strconv.Itoa(i/2)) || err != nil {
			t.Fatalf("command %d: %v, %v", i, reply, err)
		}
	}
	if fake.evals != 2 {
		t.Errorf("%d sources were sent for two scripts", fake.evals)
	}
	if got := fake.sizes(); !slices.Equal(got, []int{1, 1, 100, 100}) {
		t.Errorf("the round trips had %v commands", got)
	}
}
