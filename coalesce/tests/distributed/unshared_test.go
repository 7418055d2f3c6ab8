package distributed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// oddCodec is a codec of bytes that encodes as a test says.
type oddCodec func([]byte) ([]byte, error)

func (oddCodec) Name() string                       { return "odd" }
func (c oddCodec) Marshal(b []byte) ([]byte, error) { return c(b) }
func (oddCodec) Unmarshal(b []byte) ([]byte, error) { return slices.Clone(b), nil }

// Results that a test's fleet does not share, and that it does.
var large, small = make([]byte, 2<<20), []byte("small")

// obstacle keeps large results from travelling.
type obstacle struct {
	connect func(t *testing.T, server *redisrig.Server) (addr string) // nil: to the server
	hook    redis.Hook                                                // of the clients; nil: none
	fleet   []distributed.Option
	group   func(t *testing.T) distributed.GroupOption // nil: none
}

var obstacles = map[string]obstacle{
	"payload limit": {group: func(*testing.T) distributed.GroupOption { return distributed.WithPayloadLimit(1000) }},
	"no encoding": {group: func(*testing.T) distributed.GroupOption {
		return distributed.WithCodec[[]byte](oddCodec(func(b []byte) ([]byte, error) {
			if len(b) == len(large) {
				return nil, errors.New("it has none")
			}
			return b, nil
		}))
	}},
	"encoding takes too long": {
		fleet: []distributed.Option{distributed.WithLeaseTTL(3 * time.Second), distributed.WithRedisTimeout(time.Second)},
		group: func(t *testing.T) distributed.GroupOption {
			return distributed.WithCodec[[]byte](oddCodec(func(b []byte) ([]byte, error) {
				if len(b) == len(large) {
					<-t.Context().Done()
				}
				return b, nil
			}))
		},
	},
	"request limit": {hook: refusesLarge{}},
	"thin link":     {connect: thinLink, fleet: []distributed.Option{distributed.WithRedisTimeout(time.Second)}},
}

// refusesLarge is a proxy that answers requests of 256 KiB itself, and says that they are
// too large, as those of some providers do.
type refusesLarge struct{}

// tooBig is an error that a server replied.
type tooBig struct{}

func (tooBig) Error() string { return "ERR max request size exceeded" }

// RedisError makes tooBig a redis.Error.
func (tooBig) RedisError() {}

func (refusesLarge) DialHook(next redis.DialHook) redis.DialHook { return next }

func (refusesLarge) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		for _, arg := range cmd.Args() {
			if b, ok := arg.([]byte); ok && len(b) >= 256<<10 {
				cmd.SetErr(tooBig{})
				return cmd.Err()
			}
		}
		return next(ctx, cmd)
	}
}

func (refusesLarge) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// thinLink returns the address of a proxy that passes on 256 KiB a second on each
// connection.
func thinLink(t *testing.T, server *redisrig.Server) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	pass := func(to, from net.Conn) {
		defer to.Close()
		defer from.Close()
		chunk := make([]byte, 4<<10)
		for {
			n, err := from.Read(chunk)
			if err != nil {
				return
			}
			if _, err := to.Write(chunk[:n]); err != nil {
				return
			}
			time.Sleep(time.Duration(n) * time.Second / (256 << 10)) // 256 KiB a second
		}
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			redis, err := net.Dial("tcp", server.Addr)
			if err != nil {
				_ = client.Close()
				continue
			}
			go pass(redis, client)
			go pass(client, redis)
		}
	}()
	return listener.Addr().String()
}

// overcome returns three replicas' Groups with an obstacle.
func (o obstacle) overcome(t *testing.T, server *redisrig.Server) (groups []*distributed.Group[[]byte]) {
	addr := server.Addr
	if o.connect != nil {
		addr = o.connect(t, server)
	}
	for range 3 {
		client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true, MaxRetries: -1})
		if o.hook != nil {
			client.AddHook(o.hook)
		}
		opts := []distributed.Option{distributed.WithRedisTimeout(calm), distributed.WithLeaseTTL(calm), distributed.WithMaxTakeovers(0)}
		f, err := distributed.Open(client, append(opts, o.fleet...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := f.Close(context.Background()); err != nil {
				t.Error(err)
			}
			_ = client.Close()
		})
		var group []distributed.GroupOption
		if o.group != nil {
			group = append(group, o.group(t))
		}
		groups = append(groups, newGroup[[]byte](t, f, "g", group...))
	}
	return groups
}

// each has every Group ask for the key at the same time, with a function that waits until
// so many run, or have joined another, and then returns what it is to.
func each(t *testing.T, client *redis.Client, groups []*distributed.Group[[]byte], running, joined int, result []byte) map[coalesce.Role]int {
	t.Helper()
	var runs atomic.Int32
	var calls []<-chan answer[[]byte]
	for _, g := range groups {
		calls = append(calls, calling(context.Background(), g, "k", func(context.Context) ([]byte, error) {
			runs.Add(1)
			eventually(t, fmt.Sprintf("%d run at the same time, and %d have joined", running, joined), func() bool {
				lease := leaseOf(client, "g", "k")
				return int(runs.Load()) >= running && (joined == 0 || len(lease) > 27 && lease[23:27] == fmt.Sprintf("%04d", joined) || runs.Load() > 1)
			})
			time.Sleep(onItsWay)
			return result, nil
		}))
	}
	var answers []answer[[]byte]
	for _, call := range calls {
		a := comesBack(t, "a caller", call)
		if !bytes.Equal(a.val, result) || a.err != nil {
			t.Errorf("a caller has %d bytes and %v", len(a.val), a.err)
		}
		answers = append(answers, a)
	}
	return roles(answers)
}

// TestNobodyWaitsForAResultThatCannotTravel is about keys whose results are of no use to
// other replicas, for whatever reason.
func TestNobodyWaitsForAResultThatCannotTravel(t *testing.T) {
	t.Parallel()
	for name, o := range obstacles {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			server := redisrig.Start(t)
			client := server.Client()
			groups := o.overcome(t, server)
			const lease = "fleetcall:g:{k}:lease"
			marked := func() bool { return client.Get(ctx, lease).Val() == "!too large" }

			if n := each(t, client, groups, 1, 2, large); n[coalesce.Leader] != 1 || n[coalesce.Fallback] != 2 {
				t.Errorf("the first time: %v", n)
			}
			eventually(t, "the key is known as one that cannot be shared", marked)
			if n := each(t, client, groups, 3, 0, large); n[coalesce.Fallback] != 3 {
				t.Errorf("the next time: %v", n)
			}
			if n := client.Exists(ctx, "fleetcall:g:{k}:attempts").Val(); n != 0 {
				t.Error("the key is on its way to be poisoned")
			}
			for i, g := range groups {
				if _, role, err := g.Do(ctx, "another key", func(context.Context) ([]byte, error) { return small, nil }); role != coalesce.Leader || err != nil {
					t.Errorf("replica %d, another key: %v, %v", i, role, err)
				}
				eventually(t, "that flight has ended", func() bool { return leaseOf(client, "g", "another key") == "" })
			}

			for what, forget := range map[string]func() error{
				"its time is over":     func() error { return client.PExpire(ctx, lease, time.Millisecond).Err() },
				"the key is forgotten": func() error { return groups[0].Forget(ctx, "k") },
			} {
				eventually(t, "the key is marked", func() bool {
					return marked() || client.Set(ctx, lease, "!too large", 10*time.Second).Err() != nil
				})
				if err := forget(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the mark is gone", func() bool { return client.Exists(ctx, lease).Val() == 0 })
				if n := each(t, client, groups, 1, 2, small); n[coalesce.Leader] != 1 || n[coalesce.RemoteFollower] != 2 {
					t.Errorf("when %s: %v", what, n)
				}
				eventually(t, "the flight has ended", func() bool { return client.Exists(ctx, lease).Val() == 0 })
			}
		})
	}
}

// TestALargeResultThatCannotBeFetchedIsItsKeysTroubleAlone has a server that cuts off who
// fetches more than 256 KiB at a time. The leader's replica is told nothing of that.
func TestALargeResultThatCannotBeFetchedIsItsKeysTroubleAlone(t *testing.T) {
	ctx := context.Background()
	server := redisrig.Start(t)
	client := server.Client()
	if err := client.ConfigSet(ctx, "client-output-buffer-limit", "normal 262144 0 0").Err(); err != nil {
		t.Fatal(err)
	}
	groups := obstacle{}.overcome(t, server)
	for range 3 {
		if n := each(t, client, groups, 1, 2, large); n[coalesce.Leader] != 1 || n[coalesce.Fallback] != 2 {
			t.Errorf("the key: %v", n)
		}
		eventually(t, "the flight has ended", func() bool { return leaseOf(client, "g", "k") == "" })
		for i, g := range groups {
			if _, role, err := g.Do(ctx, "another key", func(context.Context) ([]byte, error) { return small, nil }); role != coalesce.Leader || err != nil {
				t.Errorf("replica %d, another key: %v, %v", i, role, err)
			}
			eventually(t, "that flight has ended", func() bool { return leaseOf(client, "g", "another key") == "" })
		}
	}
}
