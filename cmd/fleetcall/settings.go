package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// replicaFlags are the settings of every command that is a replica of a fleet.
type replicaFlags struct {
	Listen        string        `name:"listen" env:"LISTEN_ADDR" default:":8000" help:"Address to listen on; port 0 takes a free one."`
	ReplicaID     string        `name:"replica-id" env:"REPLICA_ID" help:"This replica's name; empty: host name and port."`
	RedisURL      string        `name:"redis-url" env:"REDIS_URL" help:"redis:// or rediss://; several, comma-separated: Cluster; redis+sentinel://host:port,host:port/master: Sentinel."`
	Mode          string        `name:"mode" env:"COALESCE_MODE" help:"off, shadow, local or distributed; empty: distributed with a Redis, else local."`
	Namespace     string        `name:"namespace" env:"COALESCE_NAMESPACE" default:"fleetcall" help:"Prefix of every key and channel in Redis."`
	LeaseTTL      time.Duration `name:"lease-ttl" env:"COALESCE_LEASE_TTL" default:"3s" help:"How long a dead leader delays its followers."`
	FlightTimeout time.Duration `name:"flight-timeout" env:"COALESCE_FLIGHT_TIMEOUT" default:"30s" help:"How long a shared query, or request to the upstream, may take."`
	MaxAge        time.Duration `name:"max-age" env:"COALESCE_MAX_AGE" default:"0s" help:"How old a finished result may be that is still given out; 0: only results of those that still run."`
	Adaptive      bool          `name:"adaptive" env:"COALESCE_ADAPTIVE" help:"Ask Redis only for keys that several replicas ask for at the same time."`
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
	modeShadow      = "shadow"
	modeLocal       = "local"
	modeDistributed = "distributed"
)

// mode returns the mode that the settings mean.
func (f *replicaFlags) mode() string {
	switch {
	case f.Mode != "":
		return f.Mode
	case f.RedisURL != "":
		return modeDistributed
	}
	return modeLocal
}

// check refuses values that cannot work, with an error that names the flag and the
// variable.
func (f *replicaFlags) check() error {
	if _, _, err := net.SplitHostPort(f.Listen); err != nil {
		return fmt.Errorf("--listen (LISTEN_ADDR): %q is not host:port or :port", f.Listen)
	}
	if !slices.Contains([]string{"", modeOff, modeShadow, modeLocal, modeDistributed}, f.Mode) {
		return fmt.Errorf("--mode (COALESCE_MODE): %q is none of off, shadow, local, distributed", f.Mode)
	}
	if !slices.Contains([]string{"text", "json"}, f.LogFormat) {
		return fmt.Errorf("--log-format (LOG_FORMAT): %q is neither text nor json", f.LogFormat)
	}
	if f.Mode == modeDistributed && f.RedisURL == "" {
		return errors.New("--mode (COALESCE_MODE): distributed needs a Redis: set --redis-url (REDIS_URL), such as redis://localhost:6379")
	}
	if f.MaxConns < 1 {
		return fmt.Errorf("--max-connections (MAX_CONNECTIONS): %d is less than 1", f.MaxConns)
	}
	if host, _, err := net.SplitHostPort(f.PprofAddr); f.PprofAddr != "" && (err != nil || !isLoopback(host)) {
		return fmt.Errorf("--pprof-addr (PPROF_ADDR): %q is not host:port with a loopback host, such as localhost:6060", f.PprofAddr)
	}
	notASCII := func(r rune) bool { return r < ' ' || r > '~' }
	if f.AdminToken != strings.TrimSpace(f.AdminToken) || strings.ContainsFunc(f.AdminToken, notASCII) {
		return errors.New("--admin-token (ADMIN_TOKEN): no client can send it in a header, unless it is printable ASCII characters without blanks around them. Take another, such as the output of: openssl rand -hex 32")
	}
	if len(f.ReplicaID) > 255 || strings.ContainsFunc(f.ReplicaID, notASCII) {
		return errors.New("--replica-id (REPLICA_ID): it must be at most 255 printable ASCII characters, because it is sent in a header")
	}
	if f.Namespace == "" || strings.ContainsAny(f.Namespace, "{}") {
		return fmt.Errorf("--namespace (COALESCE_NAMESPACE): %q must not be empty or contain braces", f.Namespace)
	}
	return f.checkTimes()
}

// checkTimes refuses durations that are too short, and those that do not fit together.
func (f *replicaFlags) checkTimes() error {
	err := atLeast(
		leastTime{"--lease-ttl (COALESCE_LEASE_TTL)", f.LeaseTTL, time.Millisecond},
		leastTime{"--flight-timeout (COALESCE_FLIGHT_TIMEOUT)", f.FlightTimeout, time.Millisecond},
		leastTime{"--max-age (COALESCE_MAX_AGE)", f.MaxAge, 0},
		leastTime{"--redis-timeout (COALESCE_REDIS_TIMEOUT)", f.RedisTimeout, time.Millisecond},
		leastTime{"--shutdown-delay (SHUTDOWN_DELAY)", f.ShutdownDelay, 0},
		leastTime{"--shutdown-grace (SHUTDOWN_GRACE)", f.Grace, 0},
	)
	if err == nil && f.RedisTimeout > f.LeaseTTL {
		return fmt.Errorf("--redis-timeout (COALESCE_REDIS_TIMEOUT): %v is over --lease-ttl (COALESCE_LEASE_TTL), %v: a leader could not renew its lease in time; lower the one or raise the other", f.RedisTimeout, f.LeaseTTL)
	}
	return err
}

// leastTime is a setting and the least that it may be.
type leastTime struct {
	name         string
	value, least time.Duration
}

// atLeast returns an error for the first setting that is too short.
func atLeast(settings ...leastTime) error {
	for _, s := range settings {
		if s.value < s.least {
			return fmt.Errorf("%s: %v is less than %v", s.name, s.value, s.least)
		}
	}
	return nil
}
