// Package fleet runs several fleetcall replicas on this machine, each in its own
// process, behind a balancer.
//
// The balancer is nginx with the configuration from package deploy, or a built-in one
// if nginx is not installed. If no database or no Redis is given, the fleet brings its
// own: an SQLite file that the replicas share, and a Redis server inside this process.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fleet is a running fleet. Its methods may be called concurrently.
type Fleet struct {
	config   Config
	dir      string
	logs     *lineWriter
	client   *http.Client
	balancer balancer
	redis    *embeddedRedis // nil if Config has a RedisURL

	mu       sync.Mutex
	binary   string     // from which the next replica is started
	replicas []*Replica // every replica that was ever ready
	started  int        // how many replicas were started, for their numbers
	closed   bool
	closing  sync.Once
	closeErr error
}

// balancer spreads requests over replicas.
type balancer interface {
	name() string
	// setReplicas replaces the addresses of the replicas.
	setReplicas(ctx context.Context, addrs []string) error
	close() error
}

// Start starts a fleet. It returns when every replica is ready and the balancer
// answers. If it returns an error, nothing is left running.
func Start(ctx context.Context, config Config) (*Fleet, error) {
	if err := config.setDefaults(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "fleetcall-fleet-")
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the fleet's directory: %w", err)
	}
	f := &Fleet{
		config: config,
		binary: config.Binary,
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

func (f *Fleet) start(ctx context.Context) error {
	var err error
	if f.config.RedisURL == "" {
		if f.redis, err = startEmbeddedRedis(); err != nil {
			return err
		}
	}
	// The first replica fills an embedded database before the others open it.
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
		b, err := startNginx(ctx, f.config.Listen, filepath.Join(f.dir, "nginx"), addrs, f.config.ByURI, f.logs.named("nginx"), f.report)
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

// report passes a sentence on, except while the fleet is being closed: then processes
// end because they were told to.
func (f *Fleet) report(sentence string) {
	f.mu.Lock()
	closed := f.closed
	f.mu.Unlock()
	if !closed {
		f.config.Report(sentence)
	}
}

// URL returns the balancer's base URL, without a slash at its end.
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

// EmbeddedDatabase reports whether the fleet brought its own database.
func (f *Fleet) EmbeddedDatabase() bool { return f.config.DatabaseURL == "" }

// Redis names the Redis in use, without its password.
func (f *Fleet) Redis() string {
	if f.redis != nil {
		return "embedded, " + f.redis.url()
	}
	return "given, " + withoutPassword(f.config.RedisURL)
}

// Replicas returns the replicas that are running, except those that were told to stop,
// in the order of their start.
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

// AddReplica starts one more replica. It returns when the replica is ready and the
// balancer sends it requests.
func (f *Fleet) AddReplica(ctx context.Context) (*Replica, error) {
	r, err := f.startReplica(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.balancer.setReplicas(ctx, f.addrs()); err != nil {
		return nil, err
	}
	return r, nil
}

// Restart starts a replica that has ended again, with the same ID on another port. It
// returns when the replica is ready and the balancer sends it requests.
func (f *Fleet) Restart(ctx context.Context, ended *Replica) (*Replica, error) {
	if ended.proc.Running() {
		return nil, fmt.Errorf("fleetcall: restarting %s: it still runs", ended.ID)
	}
	r, err := f.launch(ctx, ended.number)
	if err != nil {
		return nil, err
	}
	if err := f.balancer.setReplicas(ctx, f.addrs()); err != nil {
		return nil, err
	}
	return r, nil
}

// Close stops the balancer and then the replicas, so that requests under way are
// answered, and removes the fleet's files. When it returns, even with an error, nothing
// is left running.
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

// withoutPassword returns the address of a server without its user and password.
func withoutPassword(address string) string {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		// A connection string of the form key=value may hold a password anywhere.
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
