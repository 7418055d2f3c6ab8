package distributed

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
)

// FuzzErrorPayload reads the payload of an error outcome from anybody.
func FuzzErrorPayload(f *testing.F) {
	f.Add([]byte(`{"message":"no such product","names":["context.DeadlineExceeded","of another version"]}`))
	f.Add([]byte(`{"message":"` + strings.Repeat("x", 100) + `"}`))
	f.Add([]byte(`{"message":null,"names":[null,"",1]}`))
	f.Add([]byte(`{"names":`))
	f.Add([]byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		err, bad := outcome{kind: kindError, payload: payload}.remoteError()
		if bad != nil {
			if json.Valid(payload) && json.Unmarshal(payload, new(wireError)) == nil {
				t.Fatalf("%q is refused: %v", payload, bad)
			}
			return
		}
		remote := err.(*coalesce.RemoteError)
		if errors.Is(err, context.DeadlineExceeded) != slices.Contains(remote.Names, "context.DeadlineExceeded") &&
			!slices.Contains(remote.Names, "fleetcall.ErrFlightTimeout") {
			t.Fatalf("%q: %q is not what errors.Is says", payload, remote.Names)
		}
		// From a nested group it goes on as it came.
		again, bad := errorOutcome(kindError, someFlight(), err).remoteError()
		if bad != nil || again.Error() != strings.ToValidUTF8(err.Error(), "\ufffd") {
			t.Fatalf("%q became %q, %v", err, again, bad)
		}
		for _, name := range remote.Names {
			if !slices.Contains(again.(*coalesce.RemoteError).Names, name) {
				t.Fatalf("name %q is lost", name)
			}
		}
	})
}

// FuzzControlMessage hears anything on the control channel.
func FuzzControlMessage(f *testing.F) {
	f.Add("\x01f\x05otherkey")
	f.Add("\x01f\x04selfkey")
	f.Add("\x01f\x00key")
	f.Add("\x01f\xffshort")
	f.Add("\x02f\x00key")
	f.Add("\x01")
	f.Fuzz(func(t *testing.T, message string) {
		g := &Group[string]{instance: "self"}
		wantGarbage, wantForgotten, key := true, false, ""
		if len(message) >= 3 && message[:2] == "\x01f" && len(message) >= 3+int(message[2]) {
			sender := message[3 : 3+int(message[2])]
			key = message[3+int(message[2]):]
			wantGarbage, wantForgotten = false, sender != g.instance
		}
		ctx := context.Background()
		release := make(chan struct{})
		held := func(context.Context) (result[string], error) {
			<-release
			return result[string]{}, nil
		}
		named, other := g.local.DoChan(ctx, key, held), g.local.DoChan(ctx, key+"'", held)
		g.control(message)
		named2, other2 := g.local.DoChan(ctx, key, held), g.local.DoChan(ctx, key+"'", held)
		close(release)
		<-named
		<-other
		if forgotten := (<-named2).Role == coalesce.Leader; forgotten != wantForgotten {
			t.Errorf("%q: key %q forgotten: %v", message, key, forgotten)
		}
		if (<-other2).Role == coalesce.Leader {
			t.Errorf("%q: another key is forgotten", message)
		}
		if garbage := g.garbage.Load() == 1; garbage != wantGarbage {
			t.Errorf("%q: counted as garbage: %v", message, garbage)
		}
	})
}

// scriptedRedis is a client whose join and peek reply what a test says: the
// first join, and each peek. Like the real one it does not offer a kept value
// to who asked for none, nor the same flight again after it was gone.
type scriptedRedis struct {
	mu         sync.Mutex
	join, peek any
	joined     bool
}

func (r *scriptedRedis) script(join, peek any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.join, r.peek, r.joined = join, peek, false
}

// DialHook makes scriptedRedis a redis.Hook that connects to nothing.
func (*scriptedRedis) DialHook(redis.DialHook) redis.DialHook {
	return func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no network") }
}

// ProcessPipelineHook makes scriptedRedis a redis.Hook.
func (*scriptedRedis) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook makes scriptedRedis a redis.Hook that replies.
func (r *scriptedRedis) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		reply, ok := cmd.(*redis.Cmd)
		if !ok {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		switch reply.Args()[1] {
		case joinScript.Hash():
			reply.SetVal(r.join)
			if r.joined {
				reply.SetVal([]any{"lead", int64(1)})
			}
			r.joined = true
		case peekScript.Hash():
			reply.SetVal(r.peek)
		default:
			reply.SetVal(int64(1))
		}
		return nil
	}
}

// FuzzScriptReply lets the scripts reply anything. Do must return what a reply
// brought as a value, or the function's own, or an error that it promises.
func FuzzScriptReply(f *testing.F) {
	value := string(outcome{kind: kindValue, flight: strings.Repeat("f", flightIDLen), codec: "json", payload: []byte(`"theirs"`)}.encode())
	failed := string(errorOutcome(kindError, strings.Repeat("f", flightIDLen), errors.New("no")).encode())
	f.Add(uint8(0), "lead", "", int64(1), uint8(0), "", "", int64(0))
	f.Add(uint8(0), "done", value, int64(5), uint8(0), "", "", int64(0))
	f.Add(uint8(0), "done", failed, int64(-5), uint8(0), "", "", int64(0))
	f.Add(uint8(0), "follow", strings.Repeat("f", flightIDLen), int64(1), uint8(0), "done", value, int64(-1))
	f.Add(uint8(0), "follow", strings.Repeat("f", flightIDLen), int64(1), uint8(0), "done", failed, int64(-1))
	f.Add(uint8(0), "follow", strings.Repeat("f", flightIDLen), int64(1), uint8(2), "running", "", int64(1))
	f.Add(uint8(10), "follow", strings.Repeat("f", flightIDLen), int64(1_700_000_000_000_000), uint8(0), "done", value, int64(-1))
	f.Add(uint8(2), "poisoned", "", int64(3), uint8(0), "", "", int64(0))
	f.Add(uint8(1), "lead", "", int64(1), uint8(3), "", "", int64(0))
	scripted := &scriptedRedis{}
	client := redis.NewClient(&redis.Options{})
	client.AddHook(scripted)
	g, err := New[string](client, WithRedisTimeout(5*time.Millisecond), WithLeaseTTL(5*time.Millisecond), WithFlightTimeout(50*time.Millisecond),
		WithObserver(NoObserver{})) // who wants more of a reply
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := g.Close(context.Background()); err != nil {
			f.Error(err)
		}
		_ = client.Close()
	})
	f.Fuzz(func(t *testing.T, joinShape uint8, joinWord, joinText string, joinNumber int64, peekShape uint8, peekWord, peekText string, peekNumber int64) {
		scripted.script(scriptReply(joinShape, joinWord, joinText, joinNumber), scriptReply(peekShape, peekWord, peekText, peekNumber))
		v, role, err := g.Do(context.Background(), "k", func(context.Context) (string, error) { return "own", nil })
		var remote *coalesce.RemoteError
		switch {
		case err != nil:
			if !errors.Is(err, coalesce.ErrPoisoned) && !errors.Is(err, coalesce.ErrFlightTimeout) && !errors.As(err, &remote) {
				t.Errorf("%v, %v", role, err)
			}
		case v == "own" && (role == coalesce.Leader || role == coalesce.Fallback):
		default:
			for _, text := range []string{joinText, peekText} {
				var brought string
				if o, err := decodeOutcome(text); err == nil && o.kind == kindValue && json.Unmarshal(o.payload, &brought) == nil && brought == v {
					return
				}
			}
			t.Errorf("%q as %v: nobody made this result", v, role)
		}
	})
}

// scriptReply returns a reply of one of the shapes that a script, a foreign
// script or a proxy may give it.
func scriptReply(shape uint8, word, text string, number int64) any {
	return []any{
		[]any{word, text, number},
		word,
		[]any{word, number},
		[]any{},
		nil,
		number,
		[]any{number, word},
		[]any{word, number, text},
		[]any{[]any{word}, text},
		[]any{word, nil, nil},
		[]any{word, text, int64(1), number, text},
	}[shape%11]
}
