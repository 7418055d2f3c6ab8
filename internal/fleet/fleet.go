// Package fleet runs several fleetcall replicas on this machine, each in a
// process of its own, behind a balancer.
//
// The balancer is the installed nginx with the configuration in deploy, or one
// built in where there is no nginx. Where no database or no Redis is given, the
// fleet brings its own: an SQLite file that its replicas share, and a Redis
// that lives in this process.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
)

// Config says what to run. Its zero value is three replicas of this very
// program in distributed mode, with embedded parts, on a free port.
type Config struct {
	Binary      string // fleetcall's path; empty: the running program's
	Listen      string // the balancer's address; empty: a free port of 127.0.0.1
	Replicas    int    // to start with; zero: 3
	Mode        string // off, local or distributed; empty: distributed
	DatabaseURL string // empty: an embedded database
	RedisURL    string // empty: an embedded Redis
	Balancer    string // BalancerAuto, BalancerNginx or BalancerBuiltin; empty: auto

	// Env is added to this process' environment for the replicas, and wins
	// over it.
	Env []string
	// Logs receives the output of replicas and nginx, each line after its
	// process' name in brackets; nil: it is discarded.
	Logs io.Writer
	// Report receives a sentence when something happens that nobody asked
	// for: a replica died, nginx cannot be used. It may be called from
	// several goroutines at once. nil: it is discarded.
	Report func(string)
	// StartTimeout bounds how long a replica may take to be ready; zero: 30 s.
	StartTimeout time.Duration
	// StopGrace bounds how long a replica may take to end after SIGTERM before
	// it is killed; zero: 40 s.
	StopGrace time.Duration
}

// The balancers of Config.
const (
	BalancerAuto    = "auto"
	BalancerNginx   = "nginx"
	BalancerBuiltin = "builtin"
)

// Fleet is a running fleet. Its methods may be called concurrently.
type Fleet struct {
	config   Config
	dir      string
	logs     *lineWriter
	client   *http.Client
	balancer balancer
	redis    *embeddedRedis // nil when one was given

	mu       sync.Mutex
	replicas []*Replica // every one that was ready once
	started  int        // replicas so far, to number them
	closed   bool
	closing  sync.Once
	closeErr error
}

// balancer spreads requests over replicas.
type balancer interface {
	name() string
	// set replaces the replicas' addresses.
	set(ctx context.Context, addrs []string) error
	close() error
}

// Start starts a fleet and returns when every replica is ready and the
// balancer answers. When it returns an error, nothing is left running.
func Start(ctx context.Context, config Config) (*Fleet, error) {
	if err := config.complete(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fleetcall-fleet-")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the fleet's directory: %w", err)
	}
	f := &Fleet{
		config: config,
		dir:    dir,
		logs:   &lineWriter{w: config.Logs},
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := f.start(ctx); err != nil {
		if closeErr := f.Close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
		return nil, err
	}
	return f, nil
}

func (c *Config) complete() error {
	if c.Binary == "" {
		path, err := os.Executable()
		if err != nil {
			return fmt.Errorf("fleetcall: finding this program's file: %w", err)
		}
		c.Binary = path
	}
	if c.Replicas == 0 {
		c.Replicas = 3
	}
	if c.Replicas < 1 {
		return fmt.Errorf("fleetcall: a fleet of %d replicas: it needs at least 1", c.Replicas)
	}
	if c.Mode == "" {
		c.Mode = "distributed"
	}
	if !slices.Contains([]string{"off", "local", "distributed"}, c.Mode) {
		return fmt.Errorf("fleetcall: unknown mode %q: it is off, local or distributed", c.Mode)
	}
	if c.Balancer == "" {
		c.Balancer = BalancerAuto
	}
	if !slices.Contains([]string{BalancerAuto, BalancerNginx, BalancerBuiltin}, c.Balancer) {
		return fmt.Errorf("fleetcall: unknown balancer %q: it is %s, %s or %s", c.Balancer, BalancerAuto, BalancerNginx, BalancerBuiltin)
	}
	if c.Listen == "" {
		c.Listen = "127.0.0.1:0"
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("fleetcall: listen address %q: %w", c.Listen, err)
	}
	if port == "0" {
		free, err := loopback.FreePort()
		if err != nil {
			return err
		}
		c.Listen = net.JoinHostPort(host, strconv.Itoa(free))
	}
	// nginx shares its port with any other nginx of the same user that asks
	// to; two fleets on one port would each get half of the requests.
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", c.Listen, err)
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("fleetcall: listening on %s: %w", c.Listen, err)
	}
	if c.Logs == nil {
		c.Logs = io.Discard
	}
	if c.Report == nil {
		c.Report = func(string) {}
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 30 * time.Second
	}
	if c.StopGrace == 0 {
		c.StopGrace = 40 * time.Second
	}
	return nil
}

func (f *Fleet) start(ctx context.Context) error {
	var err error
	if f.config.RedisURL == "" {
		if f.redis, err = startEmbeddedRedis(); err != nil {
			return err
		}
	}
	// The first replica fills an embedded database; the others find it ready.
	if _, err := f.startReplica(ctx); err != nil {
		return err
	}
	if err := f.startRest(ctx, f.config.Replicas-1); err != nil {
		return err
	}
	return f.startBalancer(ctx)
}

func (f *Fleet) startRest(ctx context.Context, n int) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = f.startReplica(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *Fleet) startBalancer(ctx context.Context) error {
	addrs := f.addrs()
	if f.config.Balancer != BalancerBuiltin {
		b, err := startNginx(ctx, f.config.Listen, filepath.Join(f.dir, "nginx"), addrs, f.logs.named("nginx"), f.report)
		if err == nil {
			f.balancer = b
			return nil
		}
		if f.config.Balancer == BalancerNginx || ctx.Err() != nil {
			return err
		}
		if !errors.Is(err, errNoNginx) {
			f.report(fmt.Sprintf("nginx cannot be used, the built-in balancer takes its place: %v", err))
		}
	}
	b, err := startBuiltin(f.config.Listen, addrs, f.logs.named("balancer"))
	if err != nil {
		return err
	}
	f.balancer = b
	return nil
}

// report passes a sentence on unless the fleet is being closed, when ends are
// expected.
func (f *Fleet) report(sentence string) {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if !closed {
		f.config.Report(sentence)
	}
}

// URL returns the balancer's address as a base URL without a slash at its end.
func (f *Fleet) URL() string { return baseURL(f.config.Listen) }

func baseURL(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "http://" + listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}

// Balancer names the balancer in use.
func (f *Fleet) Balancer() string { return f.balancer.name() }

// Database names the database in use, without its password.
func (f *Fleet) Database() string {
	if f.EmbeddedDatabase() {
		return "embedded SQLite, " + f.databaseFile()
	}
	return "given, " + withoutPassword(f.config.DatabaseURL)
}

// EmbeddedDatabase tells whether the fleet brought its own database.
func (f *Fleet) EmbeddedDatabase() bool { return f.config.DatabaseURL == "" }

// Redis names the Redis in use, without its password.
func (f *Fleet) Redis() string {
	if f.redis != nil {
		return "embedded, " + f.redis.url()
	}
	return "given, " + withoutPassword(f.config.RedisURL)
}

// Replicas returns the replicas that were not stopped or killed and have not
// died, oldest first.
func (f *Fleet) Replicas() []*Replica {
	f.mu.Lock()
	defer f.mu.Unlock()
	var running []*Replica
	for _, r := range f.replicas {
		if r.proc.Running() && !r.ending.Load() {
			running = append(running, r)
		}
	}
	return running
}

func (f *Fleet) addrs() []string {
	var addrs []string
	for _, r := range f.Replicas() {
		addrs = append(addrs, r.addr)
	}
	return addrs
}

// AddReplica starts one more replica and returns it once it is ready and the
// balancer sends it requests.
func (f *Fleet) AddReplica(ctx context.Context) (*Replica, error) {
	r, err := f.startReplica(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.balancer.set(ctx, f.addrs()); err != nil {
		return nil, err
	}
	return r, nil
}

// Restart starts a replica that was stopped or killed again, under the same ID on
// another port, and returns it once it is ready and the balancer sends it requests.
func (f *Fleet) Restart(ctx context.Context, ended *Replica) (*Replica, error) {
	if ended.proc.Running() {
		return nil, fmt.Errorf("fleetcall: restarting %s: it still runs", ended.ID)
	}
	r, err := f.launch(ctx, ended.number)
	if err != nil {
		return nil, err
	}
	if err := f.balancer.set(ctx, f.addrs()); err != nil {
		return nil, err
	}
	return r, nil
}

// Close stops the balancer, then the replicas, in order, so that requests
// under way are answered, and removes the fleet's files. Nothing is left
// running when it returns, also when it returns an error.
func (f *Fleet) Close() error {
	f.closing.Do(func() { f.closeErr = f.close() })
	return f.closeErr
}

func (f *Fleet) close() error {
	f.mu.Lock()
	f.closed = true
	replicas := slices.Clone(f.replicas)
	f.mu.Unlock()
	var errs []error
	if f.balancer != nil {
		errs = append(errs, f.balancer.close())
	}
	var wg sync.WaitGroup
	stopped := make([]error, len(replicas))
	for i, r := range replicas {
		wg.Go(func() {
			if r.proc.Running() {
				stopped[i] = r.Stop()
			}
		})
	}
	wg.Wait()
	errs = append(errs, stopped...)
	if f.redis != nil {
		f.redis.close()
	}
	errs = append(errs, os.RemoveAll(f.dir))
	return errors.Join(errs...)
}

func (f *Fleet) databaseFile() string { return filepath.Join(f.dir, "products.db") }

func (f *Fleet) environment(id, listen string) []string {
	database, redis := f.config.DatabaseURL, f.config.RedisURL
	if database == "" {
		database = "sqlite://" + f.databaseFile()
	}
	if f.redis != nil {
		redis = f.redis.url()
	}
	env := append(os.Environ(), "DATABASE_URL="+database, "REDIS_URL="+redis, "COALESCE_MODE="+f.config.Mode)
	env = append(env, f.config.Env...)
	return append(env, "LISTEN_ADDR="+listen, "REPLICA_ID="+id)
}

// withoutPassword returns the address of a server without user and password.
func withoutPassword(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		// A PostgreSQL key=value string may hold a password anywhere.
		return "by a connection string"
	}
	rest, _, _ = strings.Cut(rest, "?")
	parts := strings.Split(rest, ",")
	for i, part := range parts {
		if at := strings.LastIndex(part, "@"); at >= 0 {
			parts[i] = part[at+1:]
		}
		if _, host, ok := strings.Cut(parts[i], "://"); ok {
			parts[i] = host
		}
	}
	return scheme + "://" + strings.Join(parts, ",")
}
