package distributed_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// inlineLimit is the default.
const inlineLimit = 64 << 10

// movements is a hook of clients that notes what moves large results.
type movements struct {
	onSet func() // called before each SET; nil: nothing is

	mu       sync.Mutex
	commands map[string]int // by step, or the name of a plain one
	script   int            // bytes: the largest argument of a script
}

func (*movements) DialHook(next redis.DialHook) redis.DialHook { return next }

func (m *movements) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if m.note(cmd) == "set" && m.onSet != nil {
			m.onSet()
		}
		return next(ctx, cmd)
	}
}

func (m *movements) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			m.note(cmd)
		}
		return next(ctx, cmds)
	}
}

func (m *movements) note(cmd redis.Cmder) (name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.commands == nil {
		m.commands = map[string]int{}
	}
	if name = scriptOf(cmd); name == "" {
		name = cmd.Name()
	} else {
		for _, arg := range cmd.Args() {
			if b, ok := arg.([]byte); ok {
				m.script = max(m.script, len(b))
			}
		}
	}
	m.commands[name]++
	return name
}

func (m *movements) sent(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.commands[name]
}

// randomBytes differ wherever they are cut.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestALargeResultTravelsInPiecesAndRunsOnce also has the server refuse what is larger than
// 1 MiB, which is the least that proto-max-bulk-len can be.
func TestALargeResultTravelsInPiecesAndRunsOnce(t *testing.T) {
	t.Parallel()
	const piece = protocol.PieceBytes
	ctx := context.Background()
	server := redisrig.Start(t)
	client := server.Client()
	if err := client.ConfigSet(ctx, "proto-max-bulk-len", "1048576").Err(); err != nil {
		t.Fatal(err)
	}
	moved := &movements{}
	groups := obstacle{hook: moved}.overcome(t, server)
	sets := 0
	for _, size := range []int{inlineLimit + 1, piece, piece + 1, 8 << 20} {
		if n := each(t, client, groups, 1, 2, randomBytes(size)); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
			t.Errorf("%d bytes: %v", size, n)
		}
		eventually(t, "the flight has ended", func() bool { return leaseOf(client, "g", "k") == "" })
		pieces := (size + piece - 1) / piece
		sets += pieces
		if moved.sent("set") != sets || moved.sent("get") != 2*sets {
			t.Errorf("%d bytes: %d SETs and %d GETs so far, not %d and %d", size, moved.sent("set"), moved.sent("get"), sets, 2*sets)
		}
	}
	if moved.script > inlineLimit {
		t.Errorf("a script was given %d bytes", moved.script)
	}
	for _, key := range client.Keys(ctx, "*").Val() {
		if ttl := client.PTTL(ctx, key).Val(); ttl <= 0 || ttl > 2*(calm+calm) {
			t.Errorf("%s lives for %v", key, ttl)
		}
	}
}

func TestALargeResultThatNobodyWantsIsNotStored(t *testing.T) {
	server := redisrig.Start(t)
	moved := &movements{}
	g := obstacle{hook: moved}.overcome(t, server)[0]
	if _, role, err := g.Do(t.Context(), "k", func(context.Context) ([]byte, error) { return large, nil }); role != coalesce.Leader || err != nil {
		t.Fatal(role, err)
	}
	eventually(t, "the lease is released", func() bool { return server.Client().Exists(context.Background(), "fleetcall:g:{k}:lease").Val() == 0 })
	if moved.sent("set") != 0 || moved.script > 0 {
		t.Errorf("%d pieces were stored, and a script was given %d bytes", moved.sent("set"), moved.script)
	}
	if keys := server.Client().Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("left in Redis: %q", keys)
	}
}

// TestTheLeaseIsRenewedWhileALargeResultIsStored holds up the first piece until the lease
// has been renewed.
func TestTheLeaseIsRenewedWhileALargeResultIsStored(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	moved := &movements{}
	moved.onSet = sync.OnceFunc(func() {
		began := moved.sent("renew")
		eventually(t, "the lease is renewed", func() bool { return moved.sent("renew") > began })
	})
	groups := obstacle{hook: moved, fleet: []distributed.Option{distributed.WithLeaseTTL(3 * time.Second), distributed.WithRedisTimeout(3 * time.Second)}}.overcome(t, server)
	if n := each(t, server.Client(), groups, 1, 2, large); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
		t.Errorf("roles %v", n)
	}
	if st := groups[0].Stats(); st.Distributed.LeaseLost != 0 {
		t.Errorf("%+v", st)
	}
}

// TestWhoComesWhileALargeResultIsStoredLeadsAnew has a caller on the leader's replica and
// one on another come between the function's end and the finish. Neither may have that
// result, and so neither fetches it.
func TestWhoComesWhileALargeResultIsStoredLeadsAnew(t *testing.T) {
	server := redisrig.Start(t)
	client := server.Client()
	stored, goOn := make(chan struct{}), make(chan struct{})
	moved := &movements{onSet: sync.OnceFunc(func() { close(stored); <-goOn })}
	groups := obstacle{hook: moved}.overcome(t, server)
	old, fresh := randomBytes(inlineLimit+1), []byte("new")
	first := calling(context.Background(), groups[0], "k", func(context.Context) ([]byte, error) {
		eventually(t, "the follower has joined", func() bool { return leaseOf(client, "g", "k")[0] == '1' })
		time.Sleep(onItsWay)
		return old, nil
	})
	eventually(t, "it leads", func() bool { return leaseOf(client, "g", "k") != "" })
	follower := calling(context.Background(), groups[1], "k", func(context.Context) ([]byte, error) { return fresh, nil })
	<-stored
	if a := comesBack(t, "the leader's caller", first); !bytes.Equal(a.val, old) || a.err != nil {
		t.Errorf("%d bytes, %v", len(a.val), a.err)
	}
	var late []<-chan answer[[]byte]
	for _, g := range []*distributed.Group[[]byte]{groups[0], groups[2]} {
		late = append(late, calling(context.Background(), g, "k", func(context.Context) ([]byte, error) { return fresh, nil }))
	}
	eventually(t, "the other replica's has joined", func() bool { lease := leaseOf(client, "g", "k"); return lease[23:27] == "0003" })
	close(goOn)
	if a := comesBack(t, "the follower", follower); !bytes.Equal(a.val, old) || a.role != coalesce.RemoteFollower {
		t.Errorf("the follower: %d bytes, %v, %v", len(a.val), a.role, a.err)
	}
	for i, call := range late {
		if a := comesBack(t, "a late caller", call); !bytes.Equal(a.val, fresh) || a.err != nil {
			t.Errorf("late caller %d: %d bytes, %v, %v", i, len(a.val), a.role, a.err)
		}
	}
	if n := moved.sent("get"); n != 1 {
		t.Errorf("the result was fetched %d times", n)
	}
}

// foreignNotice tells of pieces of foreignFlight, which ends now, in a Group of bytes.
func foreignNotice(payload []byte, change func(*wire.Outcome)) string {
	o := wire.Outcome{
		Kind: wire.KindValue, Flight: foreignFlight, Finished: redisTime() + uint64(time.Hour.Microseconds()),
		Codec: "raw", Fingerprint: wire.Fingerprint(reflect.TypeFor[[]byte]()), Payload: payload,
	}
	if change != nil {
		change(&o)
	}
	return string(wire.NoticeOf(o, protocol.PieceBytes).Encode())
}

// becauseOf is a hook that notes why the last function ran without the lease.
type becauseOf struct{ cause string }

func (b *becauseOf) Run(ctx context.Context, run distributed.Run) (context.Context, func(error)) {
	b.cause = run.Cause
	return ctx, func(error) {}
}

// TestPiecesThatAreNotWhatTheNoticeSays has a follower of a flight whose leader is this
// test, and tells it of pieces that Redis has dropped, or that somebody has cut off, or
// that it can't use.
func TestPiecesThatAreNotWhatTheNoticeSays(t *testing.T) {
	payload, own := randomBytes(protocol.PieceBytes+5), []byte("own")
	const result = "fleetcall:g:{k}:result:" + foreignFlight
	for name, tt := range map[string]struct {
		pieces [][]byte // nil: none is stored
		notice string
		role   coalesce.Role
		cause  string // why it ran its own
		gets   int
	}{
		"whole":            {wire.Pieces(payload, protocol.PieceBytes), foreignNotice(payload, nil), coalesce.RemoteFollower, "", 2},
		"dropped":          {nil, foreignNotice(payload, nil), coalesce.Leader, "", 2},
		"cut off":          {[][]byte{payload[:protocol.PieceBytes], payload[:4]}, foreignNotice(payload, nil), coalesce.Fallback, "garbage", 2},
		"longer":           {[][]byte{payload[:protocol.PieceBytes], payload[:6]}, foreignNotice(payload, nil), coalesce.Fallback, "garbage", 2},
		"of another codec": {wire.Pieces(payload, protocol.PieceBytes), foreignNotice(payload, func(o *wire.Outcome) { o.Codec = "other" }), coalesce.Fallback, "incompatible", 0},
		"too large here":   {wire.Pieces(payload, protocol.PieceBytes), foreignNotice(make([]byte, 9<<20), nil), coalesce.Fallback, "too large", 0},
		"of no kind":       {nil, foreignNotice(payload, func(o *wire.Outcome) { o.Kind = wire.KindTooLarge }), coalesce.Fallback, "garbage", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			server := redisrig.Start(t)
			client := server.Client()
			moved := &movements{}
			ran := &becauseOf{}
			g := obstacle{hook: moved, fleet: []distributed.Option{distributed.WithHooks(ran)}}.overcome(t, server)[0]
			if err := client.Set(ctx, "fleetcall:g:{k}:lease", foreignHeld(calm), calm).Err(); err != nil {
				t.Fatal(err)
			}
			follower := calling(ctx, g, "k", func(context.Context) ([]byte, error) { return own, nil })
			eventually(t, "it follows", func() bool {
				return leaseOf(client, "g", "k")[0] == '1' && client.PubSubNumSub(ctx, "fleetcall:g:{k}@0").Val()["fleetcall:g:{k}@0"] == 1
			})
			for i, piece := range tt.pieces {
				client.Set(ctx, fmt.Sprint(result, ":", i), piece, 0)
			}
			client.Del(ctx, "fleetcall:g:{k}:lease")
			client.Publish(ctx, "fleetcall:g:{k}@0", tt.notice)
			a := comesBack(t, "the follower", follower)
			want := own
			if tt.role == coalesce.RemoteFollower {
				want = payload
			}
			if !bytes.Equal(a.val, want) || a.role != tt.role || a.err != nil {
				t.Errorf("%d bytes, %v, %v", len(a.val), a.role, a.err)
			}
			if ran.cause != tt.cause || moved.sent("get") != tt.gets {
				t.Errorf("it ran because of %q, after %d GETs", ran.cause, moved.sent("get"))
			}
		})
	}
}

// TestPiecesThatAreDroppedTwice has Redis drop what two flights have stored, the second of
// which began when the first had ended: to follow a third would be in vain.
func TestPiecesThatAreDroppedTwice(t *testing.T) {
	ctx := context.Background()
	server := redisrig.Start(t)
	client := server.Client()
	ran := &becauseOf{}
	g := obstacle{fleet: []distributed.Option{distributed.WithHooks(ran)}}.overcome(t, server)[0]
	payload, own := randomBytes(inlineLimit+1), []byte("own")
	var follower <-chan answer[[]byte]
	flights := []string{foreignFlight, strings.Repeat("2", wire.FlightIDLen), strings.Repeat("3", wire.FlightIDLen)}
	lead := func(i int) {
		client.Set(ctx, "fleetcall:g:{k}:lease", strings.Replace(foreignHeld(calm), foreignFlight, flights[i], 1), calm)
	}
	lead(0)
	follower = calling(ctx, g, "k", func(context.Context) ([]byte, error) { return own, nil })
	for i := range 2 {
		eventually(t, "it follows", func() bool {
			return leaseOf(client, "g", "k")[0] == '1' && client.PubSubNumSub(ctx, "fleetcall:g:{k}@0").Val()["fleetcall:g:{k}@0"] == 1
		})
		lead(i + 1)
		client.Publish(ctx, "fleetcall:g:{k}@0", foreignNotice(payload, func(o *wire.Outcome) { o.Flight = flights[i] }))
	}
	if a := comesBack(t, "the follower", follower); !bytes.Equal(a.val, own) || a.role != coalesce.Fallback || a.err != nil || ran.cause != "too large" {
		t.Errorf("%d bytes, %v because of %q, %v", len(a.val), a.role, ran.cause, a.err)
	}
}

// TestMaxAgeKeepsALargeResult also has its pieces go before it does.
func TestMaxAgeKeepsALargeResult(t *testing.T) {
	ctx := context.Background()
	server := redisrig.Start(t)
	client := server.Client()
	moved := &movements{}
	groups := obstacle{hook: moved, group: func(*testing.T) distributed.GroupOption { return distributed.WithMaxAge(time.Hour) }}.overcome(t, server)
	result := randomBytes(protocol.PieceBytes + 5)
	do := func(i int, want coalesce.Role) {
		t.Helper()
		v, role, err := groups[i].Do(ctx, "k", func(context.Context) ([]byte, error) { return result, nil })
		if !bytes.Equal(v, result) || role != want || err != nil {
			t.Errorf("%d bytes, %v, %v: not %v", len(v), role, err, want)
		}
		eventually(t, "the flight has ended", func() bool { return leaseOf(client, "g", "k") == "" })
	}
	do(0, coalesce.Leader)
	do(0, coalesce.Cached)
	do(1, coalesce.Cached)
	pieces := client.Keys(ctx, "fleetcall:g:{k}:result:*").Val()
	if len(pieces) != 2 || moved.sent("get") != 4 {
		t.Fatalf("pieces %q, %d GETs", pieces, moved.sent("get"))
	}
	for _, piece := range pieces {
		if ttl := client.PTTL(ctx, piece).Val(); ttl < time.Hour/2 {
			t.Errorf("a piece lives for %v", ttl)
		}
	}
	client.Del(ctx, pieces[1])
	do(2, coalesce.Leader)
	client.Del(ctx, pieces[0])
	do(1, coalesce.Cached)
	if err := groups[0].Forget(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	for _, piece := range client.Keys(ctx, "fleetcall:g:{k}:result:*").Val() {
		if ttl := client.PTTL(ctx, piece).Val(); ttl > 2*(calm+calm) {
			t.Errorf("a forgotten piece lives for %v", ttl)
		}
	}
	do(1, coalesce.Leader)
}
