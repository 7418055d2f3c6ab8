package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestRedisURLOfOneServer(t *testing.T) {
	client, kind, err := newRedis("redis://user:p%2Fw@host:7000/3", 100*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	o := client.(*redis.Client).Options()
	if kind != "single" || o.Addr != "host:7000" || o.Username != "user" || o.Password != "p/w" || o.DB != 3 || o.TLSConfig != nil {
		t.Errorf("%s %+v", kind, o)
	}
	if o.DialTimeout != 100*time.Millisecond || o.ReadTimeout != 100*time.Millisecond || o.WriteTimeout != 100*time.Millisecond ||
		!o.ContextTimeoutEnabled || o.MaxRetries != 0 || o.DialerRetries != 1 || o.PoolSize < 16 || !o.DisableIdentity {
		t.Errorf("%+v", o)
	}
	secure, _, err := newRedis("rediss://host", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secure.Close() }()
	if o := secure.(*redis.Client).Options(); o.TLSConfig == nil || o.Addr != "host:6379" {
		t.Errorf("%+v", o)
	}
}

func TestRedisURLsOfACluster(t *testing.T) {
	for _, address := range []string{
		"rediss://u:p@a:1,b:2,c",
		"rediss://u:p@a:1,rediss://b:2, rediss://c:6379",
	} {
		client, kind, err := newRedis(address, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = client.Close() }()
		o := client.(*redis.ClusterClient).Options()
		if kind != "Cluster" || !slices.Equal(o.Addrs, []string{"a:1", "b:2", "c:6379"}) || o.Username != "u" || o.Password != "p" || o.TLSConfig == nil {
			t.Errorf("%s: %+v", address, o)
		}
	}
}

func TestRedisURLOfSentinels(t *testing.T) {
	o, err := sentinelOptions("u:p%40w@a:1,b,[::1]:3/main?sentinel_password=s&db=2", true)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(o.SentinelAddrs, []string{"a:1", "b:26379", "[::1]:3"}) || o.MasterName != "main" || o.Username != "u" ||
		o.Password != "p@w" || o.SentinelPassword != "s" || o.DB != 2 || o.TLSConfig == nil {
		t.Errorf("%+v", o)
	}
	client, kind, err := newRedis("redis+sentinel://a:1,b:2/main", time.Second)
	if err != nil || kind != "Sentinel" {
		t.Fatalf("%s, %v", kind, err)
	}
	_ = client.Close()
}

func TestMalformedRedisURLsAreRefusedWithoutTheirPassword(t *testing.T) {
	for _, address := range []string{
		"localhost:6379", "http://localhost", "redis://:hunter2@host/notadb", "redis://:hun/ter2@host", "redis://:hunter2@a,http://b",
		"redis://:hunter2@a/1,b", "redis+sentinel://:hunter2@a:1,b:2", "redis+sentinel:///main", "redis+sentinel://a,,b/main",
		"redis+sentinel://a/main?db=x", "redis+sentinel://a/main/sub",
	} {
		_, _, err := newRedis(address, time.Second)
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") || !strings.Contains(err.Error(), "REDIS_URL") {
			t.Errorf("%s: %v", address, err)
		}
	}
}

type reply string

func (r reply) Error() string { return string(r) }
func (reply) RedisError()     {}

func TestWatchLogsEachChangeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log output
		w := &redisWatch{log: slog.New(slog.NewTextHandler(&log, nil))}
		count := func(down, up int) {
			t.Helper()
			if d, u := strings.Count(log.String(), "cannot be used"), strings.Count(log.String(), "is connected"); d != down || u != up {
				t.Errorf("logged down %d times, up %d times, want %d, %d", d, u, down, up)
			}
		}
		w.observe(nil)
		w.observe(redis.Nil)
		w.observe(reply("ERR unknown command"))
		w.observe(fmt.Errorf("leaving: %w", context.Canceled))
		w.observe(redis.ErrPoolTimeout)
		count(0, 1)
		for range 3 {
			w.observe(errors.New("connection refused"))
			w.observe(nil) // among failures, this means nothing
		}
		count(1, 1)
		time.Sleep(calm) // the rule under test is about time
		w.observe(nil)
		w.observe(nil)
		count(1, 2)
		w.observe(reply("WRONGPASS invalid username-password pair"))
		count(2, 2)
		w.subscribed(nil)
		count(2, 3)
	})
}
