package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// serveCmd has all settings of a replica.
type serveCmd struct {
	Listen        string        `name:"listen" env:"LISTEN_ADDR" default:":8000" help:"Address to listen on; port 0 takes a free one."`
	ReplicaID     string        `name:"replica-id" env:"REPLICA_ID" help:"This replica's name; empty: host name and port."`
	DatabaseURL   string        `name:"database-url" env:"DATABASE_URL" help:"postgres://…, or sqlite:///path/file.db; empty: an embedded database."`
	RedisURL      string        `name:"redis-url" env:"REDIS_URL" help:"redis:// or rediss://; several, comma-separated: Cluster; redis+sentinel://host:port,host:port/master: Sentinel."`
	Mode          string        `name:"mode" env:"COALESCE_MODE" help:"off, local or distributed; empty: distributed with a Redis, else local."`
	QueryDelay    time.Duration `env:"QUERY_DELAY" default:"500ms" help:"How long the simulated slow query holds its connection."`
	DBPoolMin     int           `name:"db-pool-min" env:"DB_POOL_MIN" default:"5" help:"Database connections to keep."`
	DBPoolMax     int           `name:"db-pool-max" env:"DB_POOL_MAX" default:"10" help:"Database connections at most."`
	DBPoolWait    time.Duration `name:"db-pool-wait" env:"DB_POOL_WAIT" default:"60s" help:"How long a query waits for a connection."`
	Namespace     string        `name:"namespace" env:"COALESCE_NAMESPACE" default:"fleetcall" help:"Prefix of every key and channel in Redis."`
	LeaseTTL      time.Duration `name:"lease-ttl" env:"COALESCE_LEASE_TTL" default:"3s" help:"How long a dead leader delays its followers."`
	FlightTimeout time.Duration `name:"flight-timeout" env:"COALESCE_FLIGHT_TIMEOUT" default:"30s" help:"How long a shared query may take."`
	MaxAge        time.Duration `name:"max-age" env:"COALESCE_MAX_AGE" default:"0s" help:"How old a finished result may be that is still given out; 0: only results of queries that still run."`
	RedisTimeout  time.Duration `name:"redis-timeout" env:"COALESCE_REDIS_TIMEOUT" default:"250ms" help:"How long a Redis command may take."`
	AdminToken    string        `name:"admin-token" env:"ADMIN_TOKEN" help:"Bearer token that POST endpoints want, and that orders between replicas are signed with; empty: none."`
	ShutdownDelay time.Duration `name:"shutdown-delay" env:"SHUTDOWN_DELAY" default:"0s" help:"How long after SIGTERM requests are still taken while /readyz says no."`
	Grace         time.Duration `name:"shutdown-grace" env:"SHUTDOWN_GRACE" default:"10s" help:"How long requests may take to finish after SIGTERM."`
	MaxConns      int           `name:"max-connections" env:"MAX_CONNECTIONS" default:"10000" help:"Client connections at most; more have to wait."`
	PprofAddr     string        `name:"pprof-addr" env:"PPROF_ADDR" help:"Loopback address to serve profiles on, such as localhost:6060; empty: none."`

	logFlags
}

const (
	modeOff         = "off"
	modeLocal       = "local"
	modeDistributed = "distributed"
)

// Validate refuses values that cannot work, with an error that names the flag and the
// variable.
func (c *serveCmd) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("--listen (LISTEN_ADDR): %q is not host:port or :port", c.Listen)
	}
	if !slices.Contains([]string{"", modeOff, modeLocal, modeDistributed}, c.Mode) {
		return fmt.Errorf("--mode (COALESCE_MODE): %q is none of off, local, distributed", c.Mode)
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		return fmt.Errorf("--log-format (LOG_FORMAT): %q is neither text nor json", c.LogFormat)
	}
	if c.Mode == modeDistributed && c.RedisURL == "" {
		return errors.New("--mode (COALESCE_MODE): distributed needs a Redis: set --redis-url (REDIS_URL), such as redis://localhost:6379")
	}
	if c.MaxConns < 1 {
		return fmt.Errorf("--max-connections (MAX_CONNECTIONS): %d is less than 1", c.MaxConns)
	}
	if host, _, err := net.SplitHostPort(c.PprofAddr); c.PprofAddr != "" && (err != nil || !isLoopback(host)) {
		return fmt.Errorf("--pprof-addr (PPROF_ADDR): %q is not host:port with a loopback host, such as localhost:6060", c.PprofAddr)
	}
	if c.DBPoolMax < 1 || c.DBPoolMax > 10_000 {
		return fmt.Errorf("--db-pool-max (DB_POOL_MAX): %d is not between 1 and 10000", c.DBPoolMax)
	}
	if c.DBPoolMin < 0 || c.DBPoolMin > c.DBPoolMax {
		return fmt.Errorf("--db-pool-min (DB_POOL_MIN): %d is not between 0 and --db-pool-max (DB_POOL_MAX), %d", c.DBPoolMin, c.DBPoolMax)
	}
	notASCII := func(r rune) bool { return r < ' ' || r > '~' }
	if c.AdminToken != strings.TrimSpace(c.AdminToken) || strings.ContainsFunc(c.AdminToken, notASCII) {
		return errors.New("--admin-token (ADMIN_TOKEN): no client can send it in a header, unless it is printable ASCII characters without blanks around them. Take another, such as the output of: openssl rand -hex 32")
	}
	if len(c.ReplicaID) > 255 || strings.ContainsFunc(c.ReplicaID, notASCII) {
		return errors.New("--replica-id (REPLICA_ID): it must be at most 255 printable ASCII characters, because it is sent in a header")
	}
	if c.Namespace == "" || strings.ContainsAny(c.Namespace, "{}") {
		return fmt.Errorf("--namespace (COALESCE_NAMESPACE): %q must not be empty or contain braces", c.Namespace)
	}
	return c.checkTimes()
}

// checkTimes refuses durations that are too short, and those that do not fit together.
func (c *serveCmd) checkTimes() error {
	for _, limit := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"--query-delay (QUERY_DELAY)", c.QueryDelay, 0},
		{"--db-pool-wait (DB_POOL_WAIT)", c.DBPoolWait, time.Millisecond},
		{"--lease-ttl (COALESCE_LEASE_TTL)", c.LeaseTTL, time.Millisecond},
		{"--flight-timeout (COALESCE_FLIGHT_TIMEOUT)", c.FlightTimeout, time.Millisecond},
		{"--max-age (COALESCE_MAX_AGE)", c.MaxAge, 0},
		{"--redis-timeout (COALESCE_REDIS_TIMEOUT)", c.RedisTimeout, time.Millisecond},
		{"--shutdown-delay (SHUTDOWN_DELAY)", c.ShutdownDelay, 0},
		{"--shutdown-grace (SHUTDOWN_GRACE)", c.Grace, 0},
	} {
		if limit.value < limit.least {
			return fmt.Errorf("%s: %v is less than %v", limit.name, limit.value, limit.least)
		}
	}
	if c.RedisTimeout > c.LeaseTTL {
		return fmt.Errorf("--redis-timeout (COALESCE_REDIS_TIMEOUT): %v is over --lease-ttl (COALESCE_LEASE_TTL), %v: a leader could not renew its lease in time; lower the one or raise the other", c.RedisTimeout, c.LeaseTTL)
	}
	return nil
}

// Run serves until ctx ends, and then shuts down within the grace period.
func (c *serveCmd) Run(ctx context.Context) error {
	log := c.logger(os.Stderr)
	slog.SetDefault(log)
	redis.SetLogger(redisLog{log})
	r, err := newReplica(ctx, c, log)
	if err != nil {
		return err
	}
	return r.run(ctx)
}
