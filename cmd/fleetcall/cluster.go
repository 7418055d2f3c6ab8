package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// askLimit is how long a replica that starts waits for Redis to say whether it is a
// Cluster.
const askLimit = time.Second

var errClusterDatabase = errors.New("fleetcall: --redis-url (REDIS_URL) has the number of a database, but the server is one of a Redis Cluster, which has database 0 alone; " +
	"leave the number out")

// openRedis is newRedis for a replica that starts. A Cluster may have one name, such as a
// cloud's configuration endpoint or a service of Kubernetes, so a server that REDIS_URL
// names alone is asked what it is. One that does not answer is taken for one server: the
// Fleet logs it when it turns out to be a Cluster's.
func openRedis(ctx context.Context, address string, timeout time.Duration) (redis.UniversalClient, string, error) {
	client, kind, err := newRedis(address, timeout)
	if err != nil || kind != kindSingle {
		return client, kind, err
	}
	options, err := redis.ParseURL(address)
	if err != nil || options.Network != "tcp" || !isCluster(ctx, *options) {
		return client, kind, nil
	}
	_ = client.Close() // it has no connection yet
	if options.DB != 0 {
		return nil, "", errClusterDatabase
	}
	scheme, rest, _ := strings.Cut(address, "://")
	cluster, err := clusterOptions(scheme, rest)
	if err != nil {
		return nil, "", err
	}
	return newCluster(cluster, timeout), kindCluster, nil
}

// newCluster returns a client for a Cluster.
func newCluster(options *redis.ClusterOptions, timeout time.Duration) *redis.ClusterClient {
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = timeout, timeout, timeout, timeout
	options.MaxRetries, options.DialerRetries, options.PoolSize = -1, 1, redisPoolSize
	options.ContextTimeoutEnabled, options.DisableIdentity = true, true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	options.ClusterStateReloadInterval = clusterReload
	return redis.NewClusterClient(options)
}

// isCluster asks a server whether it is one of a Cluster. HELLO tells that without any
// right, and, sent without a version, changes nothing.
func isCluster(ctx context.Context, options redis.Options) bool {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	options.DB = 0 // a Cluster refuses any other before it can say what it is
	options.DialTimeout, options.MaxRetries, options.DialerRetries = askLimit, -1, 1
	options.ContextTimeoutEnabled, options.DisableIdentity = true, true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(&options)
	defer func() { _ = client.Close() }()
	reply, err := client.Do(ctx, "hello").Result()
	if err != nil {
		return false
	}
	switch reply := reply.(type) {
	case map[any]any:
		return reply["mode"] == "cluster"
	case []any: // of a connection that speaks RESP2
		for i := 0; i+1 < len(reply); i += 2 {
			if reply[i] == "mode" {
				return reply[i+1] == "cluster"
			}
		}
	}
	return false
}
