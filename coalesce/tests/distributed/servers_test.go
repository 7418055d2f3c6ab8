package distributed_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAServerIsUpAgainThoughNobodyCalls: an idle replica's must not stay what the
// last caller left.
func TestAServerIsUpAgainThoughNobodyCalls(t *testing.T) {
	var told toldLog
	var log logged
	f := newFleet[string](t, 1, distributed.WithHooks(health{log: &told}), distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	f.settled()
	if servers := f.groups[0].fleet.Stats().Redis.Servers; len(servers) != 1 || servers[0].Address != f.server.Addr || servers[0].State != distributed.ServerUp || servers[0].Why != "" || servers[0].Since.IsZero() {
		t.Errorf("at first: %+v", servers)
	}
	f.memory("1")
	if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Fallback || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	servers := f.groups[0].fleet.Stats().Redis.Servers
	if len(servers) != 1 || servers[0].State != distributed.ServerDown || !strings.HasPrefix(servers[0].Why, "oom: OOM command not allowed") {
		t.Errorf("without memory: %+v", servers)
	}
	eventually(t, "Redis is tried, with nobody calling", func() bool { return f.groups[0].Stats().Distributed.RedisErrorsBy["oom"] > 2 })
	f.memory("0")
	eventually(t, "the server is up", func() bool { return f.groups[0].Stats().Distributed.Server == distributed.ServerUp })
	eventually(t, "the hook is told", func() bool {
		told.mu.Lock()
		defer told.mu.Unlock()
		return slices.Equal(told.lines, []string{"down", "up"})
	})
	// The probes between do not show: an outage is two lines.
	for _, want := range []string{
		`level=WARN msg="fleetcall: Redis server down" replica=replica-0 server=` + f.server.Addr + ` kind=oom error="OOM command not allowed`,
		`level=INFO msg="fleetcall: Redis server up" replica=replica-0 server=` + f.server.Addr + ` down=`,
	} {
		if n := strings.Count(log.String(), want); n != 1 {
			t.Errorf("%d times in the log: %s\n%s", n, want, log.String())
		}
	}
	if n := strings.Count(log.String(), "Redis server"); n != 2 {
		t.Errorf("%d lines:\n%s", n, log.String())
	}
}

// TestTheLogSaysWhatRedisRefuses has each refusal come from Redis itself, to a replica that
// Redis has never served.
func TestTheLogSaysWhatRedisRefuses(t *testing.T) {
	for want, refuse := range map[string][]any{
		`kind=noreplicas error="NOREPLICAS`: {"CONFIG", "SET", "min-replicas-to-write", "1"},
		`kind=readonly error="READONLY`:     {"REPLICAOF", "127.0.0.1", "1"},
		`kind=oom error="OOM`:               {"CONFIG", "SET", "maxmemory", "1"},
		`kind=auth error="NOAUTH`:           {"CONFIG", "SET", "requirepass", "secret"},
		`kind=auth error="NOPERM`:           {"ACL", "SETUSER", "default", "-evalsha"},
		`kind=reply error="ERR unknown`:     nil, // by a proxy
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			var log logged
			server := redisrig.Start(t)
			if refuse == nil {
				refuse = []any{"PING"}
			} else if err := server.Client().Do(t.Context(), refuse...).Err(); err != nil {
				t.Fatal(err)
			}
			client := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DisableIdentity: true})
			t.Cleanup(func() { _ = client.Close() })
			if strings.HasPrefix(want, "kind=reply") {
				client.AddHook(noScripts{})
			}
			g := openCalm[string](t, client, distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
			t.Cleanup(func() { _ = g.Close(context.Background()) })
			for range 3 {
				if v, role, err := g.Do(t.Context(), "k", value); v != "v" || role != coalesce.Fallback || err != nil {
					t.Errorf("%q, %v, %v", v, role, err)
				}
			}
			defer func() {
				if t.Failed() {
					t.Log(log.String())
				}
			}()
			eventually(t, "the log has it", func() bool { return strings.Contains(log.String(), want) })
		})
	}
}

// noScripts is a proxy that knows no scripts.
type noScripts struct{}

func (noScripts) DialHook(next redis.DialHook) redis.DialHook { return next }

func (noScripts) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		cmd.SetErr(unknownCommand{})
		return cmd.Err()
	}
}

func (noScripts) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

type unknownCommand struct{}

func (unknownCommand) Error() string { return "ERR unknown command 'evalsha'" }

// RedisError makes unknownCommand a redis.Error.
func (unknownCommand) RedisError() {}

// memory sets how much Redis may use; "0" is no limit, and "1" too little.
func (f *fleet[V]) memory(limit string) {
	f.t.Helper()
	if err := f.client().ConfigSet(context.Background(), "maxmemory", limit).Err(); err != nil {
		f.t.Fatal(err)
	}
}

func TestNothingIsSentAfterClose(t *testing.T) {
	f := newFleet[string](t, 1)
	f.settled()
	f.memory("1")
	if _, role, err := f.groups[0].Do(context.Background(), "k", value); role != coalesce.Fallback || err != nil {
		t.Errorf("%v, %v", role, err)
	}
	if err := f.groups[0].Close(context.Background()); err != nil {
		t.Error(err)
	}
	f.resetCommands()
	time.Sleep(500 * time.Millisecond) // probes would have come
	if n := f.commands(); n["evalsha"]+n["eval"] != 0 {
		t.Errorf("%v", n)
	}
}

type health struct {
	log *toldLog
}

// Server makes health a distributed.ServerHook.
func (o health) Server(change distributed.ServerChange) { o.log.add(string(change.State)) }
