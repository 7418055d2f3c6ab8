package redisrig_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func init() { logging.Disable() } // the tests themselves check what the client would log

func TestClusterMovesASlotWithItsKeysAndSurvivesItsMaster(t *testing.T) {
	c := redisrig.StartCluster(t)
	client := c.Client()
	ctx := context.Background()
	for i := range 100 {
		if err := client.Set(ctx, fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}

	from, to := c.Master("k1"), c.OtherMaster("k1")
	m := c.BeginMigration("k1", to)
	if err := from.Client().Get(ctx, "k1").Err(); err != nil {
		t.Errorf("before its keys moved, the old master says %v", err)
	}
	m.MoveKeys()
	if err := from.Client().Get(ctx, "k1").Err(); err == nil || !strings.HasPrefix(err.Error(), "ASK ") {
		t.Errorf("after its keys moved, the old master says %v, want ASK", err)
	}
	if v, err := client.Get(ctx, "k1").Result(); v != "1" || err != nil {
		t.Errorf("halfway: %q, %v", v, err)
	}
	m.Finish()
	if c.Master("k1") != to {
		t.Error("the slot has not moved")
	}
	if err := from.Client().Get(ctx, "k1").Err(); err == nil || !strings.HasPrefix(err.Error(), "MOVED ") {
		t.Errorf("at the end, the old master says %v, want MOVED", err)
	}
	if v, err := client.Get(ctx, "k1").Result(); v != "1" || err != nil {
		t.Errorf("at the end: %q, %v", v, err)
	}

	killed := c.KillMaster("k1")
	c.WaitFailover(killed)
	if killed != to || c.Master("k1") == to {
		t.Error("no other node serves the slot")
	}
	if v, err := c.Master("k1").Client().Get(ctx, "k1").Result(); v != "1" || err != nil {
		t.Errorf("after the failover: %q, %v", v, err)
	}
}

func TestSentinelsReplaceTheMaster(t *testing.T) {
	s := redisrig.StartSentinel(t)
	client := s.Client()
	ctx := context.Background()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	old := s.Failover()
	master := s.WaitFailover(old)
	if master == old {
		t.Error("the master is the old one")
	}
	if v, err := master.Client().Get(ctx, "k").Result(); v != "v" || err != nil {
		t.Errorf("the new master says %q, %v", v, err)
	}
}

func TestServerWithTLSAndUsersRefusesAllOthers(t *testing.T) {
	secure := redisrig.NewTLS(t)
	args := append(secure.Args(), redisrig.ACL("guest on >secret ~guest:* +get")...)
	server := redisrig.Start(t, args...)
	ctx := context.Background()
	if err := server.Client().Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(server.URL(), "rediss://") {
		t.Errorf("URL is %s", server.URL())
	}
	options := *server.Client().Options()
	for _, c := range []struct {
		name, user, password, want string
		tls                        *tls.Config
	}{
		{"no TLS", "", "", "", nil},
		{"no user", "", "", "NOAUTH", options.TLSConfig},
		{"no right", "guest", "secret", "NOPERM", options.TLSConfig},
		{"unknown authority", "guest", "secret", "unknown authority", &tls.Config{MinVersion: tls.VersionTLS12}},
	} {
		client := redis.NewClient(&redis.Options{
			Addr: server.Addr, Username: c.user, Password: c.password, TLSConfig: c.tls, MaxRetries: -1, DialerRetries: 1,
		})
		if err := client.Set(ctx, "guest:k", "v", 0).Err(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
		_ = client.Close()
	}
}
