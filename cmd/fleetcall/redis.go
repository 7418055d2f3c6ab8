package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	redisPort    = "6379"
	sentinelPort = "26379"
	// redisPoolSize is the number of connections. It is enough for the steps of all
	// flights that a replica's database pool can lead at a time, and of its followers.
	redisPoolSize = 64
	// clusterReload is how old the client's map of a Cluster may be. The client does
	// not read the map again by itself when a master is gone.
	clusterReload = 5 * time.Second
)

// The kinds of Redis, as the log names them.
const (
	kindSingle   = "single"
	kindCluster  = "Cluster"
	kindSentinel = "Sentinel"
)

// errRedisURL does not quote the URL, because the part that cannot be read may be a
// password.
var errRedisURL = errors.New("fleetcall: --redis-url (REDIS_URL) is none of redis://[user:password@]host:port[/db], rediss://…, " +
	"several of them separated by commas (Cluster), redis+sentinel://[user:password@]host:port,host:port/master; " +
	"in passwords, percent-encode / @ : , ? # and %")

// newRedis makes a client for a REDIS_URL, and says what kind of Redis it is
// for. It does not connect. No command and no attempt to connect takes longer than
// timeout. The client tries nothing again, because the distributed tier goes on without
// Redis.
func newRedis(address string, timeout time.Duration) (client redis.UniversalClient, kind string, err error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return nil, "", errRedisURL
	}
	switch {
	case scheme == "redis+sentinel" || scheme == "rediss+sentinel":
		options, err := sentinelOptions(rest, scheme == "rediss+sentinel")
		if err != nil {
			return nil, "", err
		}
		options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = timeout, timeout, timeout, timeout
		options.MaxRetries, options.DialerRetries, options.PoolSize = -1, 1, redisPoolSize
		options.ContextTimeoutEnabled, options.DisableIdentity = true, true
		return redis.NewFailoverClient(options), kindSentinel, nil
	case strings.Contains(rest, ","):
		options, err := clusterOptions(scheme, rest)
		if err != nil {
			return nil, "", err
		}
		return newCluster(options, timeout), kindCluster, nil
	}
	options, err := redis.ParseURL(address)
	if err != nil {
		return nil, "", errRedisURL
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = timeout, timeout, timeout, timeout
	options.MaxRetries, options.DialerRetries, options.PoolSize = -1, 1, max(options.PoolSize, redisPoolSize)
	options.ContextTimeoutEnabled, options.DisableIdentity = true, true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(options), kindSingle, nil
}

// clusterOptions reads redis://user:password@host:port,host:port and the same
// with a scheme before each host. User and password are the first one's, and so
// is whether they are reached by TLS; each node has a certificate of its own.
func clusterOptions(scheme, rest string) (*redis.ClusterOptions, error) {
	options := &redis.ClusterOptions{}
	for i, part := range strings.Split(rest, ",") {
		part = strings.TrimSpace(part)
		if !strings.Contains(part, "://") {
			part = scheme + "://" + part
		}
		node, err := redis.ParseURL(part)
		if err != nil || node.DB != 0 || node.Network != "tcp" {
			return nil, errRedisURL
		}
		options.Addrs = append(options.Addrs, node.Addr)
		if i == 0 {
			options.Username, options.Password, options.TLSConfig = node.Username, node.Password, node.TLSConfig
			if options.TLSConfig != nil {
				options.TLSConfig.ServerName = "" // else every node has to be the first one
			}
		}
	}
	return options, nil
}

// sentinelOptions reads [user:password@]host:port,host:port/master. The user
// and password are those of the Redis servers; ?sentinel_username and
// ?sentinel_password are the sentinels', ?db is the database's number.
func sentinelOptions(rest string, secure bool) (*redis.FailoverOptions, error) {
	// A list of hosts is no host to net/url: the path stands in for the list.
	rest, query, _ := strings.Cut(rest, "?")
	credentials, hosts := "", rest
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		credentials, hosts = rest[:at+1], rest[at+1:]
	}
	hosts, master, _ := strings.Cut(hosts, "/")
	u, err := url.Parse("redis://" + credentials + "sentinels/" + master + "?" + query)
	if err != nil || hosts == "" || master == "" || strings.Contains(master, "/") {
		return nil, errRedisURL
	}
	options := &redis.FailoverOptions{
		MasterName:       strings.TrimPrefix(u.Path, "/"),
		Username:         u.User.Username(),
		SentinelUsername: u.Query().Get("sentinel_username"),
		SentinelPassword: u.Query().Get("sentinel_password"),
	}
	options.Password, _ = u.User.Password()
	if db := u.Query().Get("db"); db != "" {
		if _, err := fmt.Sscanf(db, "%d", &options.DB); err != nil || options.DB < 0 {
			return nil, errRedisURL
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		name, port, err := net.SplitHostPort(strings.TrimSpace(host))
		if err != nil {
			name, port = strings.Trim(strings.TrimSpace(host), "[]"), sentinelPort
		}
		if name == "" {
			return nil, errRedisURL
		}
		options.SentinelAddrs = append(options.SentinelAddrs, net.JoinHostPort(name, port))
	}
	if secure {
		options.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return options, nil
}

// redisWatch logs when Redis becomes unusable and when it is back, from the
// commands that are sent anyway. It is for the modes without a Fleet, in which replicas
// use Redis to ask each other, and for nothing else.
type redisWatch struct {
	log   *slog.Logger
	state atomic.Int32
	mu    sync.Mutex // serialises changes
	since time.Time  // of the last failure; guarded by mu
}

const (
	redisUnknown int32 = iota
	redisUp
	redisDown
)

// calm is how long no command must have failed before one that succeeds means that Redis
// is back. While Redis is overloaded, some commands fail and others succeed.
const calm = time.Second

// observe is told of the end of each command.
func (w *redisWatch) observe(err error) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, redis.ErrClosed), errors.Is(err, redis.ErrPoolTimeout):
		return // these say nothing about the server
	case unusable(err):
		w.down(err)
	case w.state.Load() != redisUp:
		w.up(calm)
	}
}

// subscribed is told when a subscription is made, with a nil error, or fails. A new
// subscription means at once that Redis is back.
func (w *redisWatch) subscribed(err error) {
	if err == nil {
		w.up(0)
		return
	}
	w.observe(err)
}

func (w *redisWatch) down(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since = time.Now()
	if w.state.Swap(redisDown) != redisDown {
		w.log.Warn("Redis cannot be used: replicas cannot ask each other until it can", "error", err)
	}
}

func (w *redisWatch) up(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if time.Since(w.since) < after {
		return
	}
	if w.state.Swap(redisUp) != redisUp {
		w.log.Info("Redis is connected")
	}
}

// unusable tells an error of the connection, or a reply that every command
// gets alike, from a reply to one command.
func unusable(err error) bool {
	if err == nil || errors.Is(err, redis.Nil) {
		return false
	}
	reply, ok := errors.AsType[redis.Error](err)
	if !ok {
		return true
	}
	for _, prefix := range []string{"NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "ERR max number of clients", "ERR AUTH", "ERR invalid password"} {
		if strings.HasPrefix(reply.Error(), prefix) {
			return true
		}
	}
	return false
}

// DialHook makes redisWatch a redis.Hook. A connection alone proves nothing:
// it still has to authenticate.
func (w *redisWatch) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook makes redisWatch a redis.Hook.
func (w *redisWatch) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		w.observe(err)
		return err
	}
}

// ProcessPipelineHook makes redisWatch a redis.Hook.
func (w *redisWatch) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		w.observe(err)
		return err
	}
}

// redisLog sends what go-redis logs by itself, which mostly repeats the errors
// it returns, to the debug level.
type redisLog struct{ log *slog.Logger }

// Printf makes redisLog go-redis' logger.
func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "go-redis: "+fmt.Sprintf(format, v...))
	}
}
