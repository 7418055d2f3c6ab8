package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestAClusterBehindOneNameIsRecognised(t *testing.T) {
	t.Parallel()
	secure := redisrig.NewTLS(t)
	_, user := documentedUsers(t)
	cluster := redisrig.StartCluster(t, append(secure.Args(), redisrig.ACL(user)...)...)
	url := asUser(cluster.Nodes()[0].URL())
	var fleet []*running
	for i := range 2 {
		fleet = append(fleet, startProcess(t, secure.CAFile, "--redis-url", url, "--redis-timeout=1m", "--lease-ttl=1m", "--query-delay=500ms", "--replica-id", fmt.Sprint("replica-", i)))
	}
	for _, r := range fleet {
		r.waitReady(t)
		r.waitConnected(t)
	}
	const products = 20 // of all masters
	var all sync.WaitGroup
	for i := range 10 * products {
		all.Go(func() { fleet[i%2].expect(t, fmt.Sprint("/product/coalesced/", 1+i/2%products), 200) })
	}
	all.Wait()
	if st := fleet[0].wholeFleet(t, 2); st.Tiers.Distributed.Fallbacks != 0 || len(st.Tiers.Distributed.RedisServers) < 3 {
		t.Errorf("%d fallbacks, %d queries, servers %+v", st.Tiers.Distributed.Fallbacks, st.Database.Queries, st.Tiers.Distributed.RedisServers)
	}
	var nodes []*redis.Client
	for _, node := range cluster.Nodes() {
		nodes = append(nodes, node.Client())
	}
	if refused := refusals(t, nodes); len(refused) > 0 {
		t.Errorf("Redis refused %q", refused)
	}
}

func TestWhatOneNameStandsFor(t *testing.T) {
	t.Parallel()
	cluster, server := redisrig.StartCluster(t), redisrig.Start(t)
	node := cluster.Nodes()[0].URL()
	for _, c := range []struct{ url, kind string }{
		{node, kindCluster},
		{node + "/0", kindCluster},
		{node + "?protocol=2", kindCluster},
		{server.URL() + "/3", kindSingle},
		{"redis://127.0.0.1:" + fmt.Sprint(rig.FreePort(t)), kindSingle}, // nobody is there
	} {
		client, kind, err := openRedis(context.Background(), c.url, time.Minute)
		if err != nil || kind != c.kind {
			t.Errorf("%s: %s, %v", c.url, kind, err)
			continue
		}
		if _, isCluster := client.(*redis.ClusterClient); isCluster != (c.kind == kindCluster) {
			t.Errorf("%s: %T", c.url, client)
		}
		_ = client.Close()
	}
	if _, _, err := openRedis(context.Background(), node+"/3", time.Minute); !errors.Is(err, errClusterDatabase) || !strings.Contains(fmt.Sprint(err), "REDIS_URL") {
		t.Errorf("database 3 of a Cluster: %v", err)
	}
}

// TestARedisThatHangsHoldsUpAStartForAMomentOnly is about a server that accepts connections
// and says nothing.
func TestARedisThatHangsHoldsUpAStartForAMomentOnly(t *testing.T) {
	t.Parallel()
	server := redisrig.Start(t)
	server.Freeze()
	client, kind, err := openRedis(context.Background(), server.URL(), time.Minute)
	if err != nil || kind != kindSingle {
		t.Fatalf("%s, %v", kind, err)
	}
	_ = client.Close()
}
