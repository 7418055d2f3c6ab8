package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAsProgram is not a test: it is the program, when this binary is started
// for it.
func TestAsProgram(t *testing.T) {
	args := os.Getenv("FLEETCALL_TEST_ARGS")
	if args == "" {
		t.Skip("only for processes of other tests")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, strings.Split(args, "\n"), os.Stdout, os.Stderr))
}

// startProcess begins to start a replica in a process of its own, which trusts
// the certificate authorities in the file and no others. It is stopped with the
// test.
func startProcess(t *testing.T, authorities string, args ...string) *running {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"serve", "--listen=127.0.0.1:0"}, args...)
	log := &output{}
	child, err := process.Start(process.Spec{
		Path: self, Args: []string{"-test.run=^TestAsProgram$"}, Dir: t.TempDir(), Stdout: log, Stderr: log,
		Env: append(os.Environ(), "FLEETCALL_TEST_ARGS="+strings.Join(args, "\n"), "SSL_CERT_FILE="+authorities, "SSL_CERT_DIR="+t.TempDir()),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{log: log, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}}}
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		if !child.Stop(syscall.SIGTERM, patience) || child.Err() != nil {
			t.Errorf("stopping a replica: %v\n%s", child.Err(), log)
		}
		if strings.Contains(log.String(), "DATA RACE") || strings.Contains(log.String(), redisPassword) {
			t.Errorf("a race, or a password, in:\n%s", log)
		}
	})
	return r
}

var readyAt = regexp.MustCompile(`msg=ready address=(\S+)`)

func (r *running) waitReady(t *testing.T) {
	t.Helper()
	eventually(t, "ready", func() bool {
		address := readyAt.FindStringSubmatch(r.log.String())
		if address == nil {
			return false
		}
		r.url = "http://" + address[1]
		return true
	})
}

const redisPassword = "hunter2"

// documentedUsers returns what follows ACL SETUSER in docs/redis.md: the user of
// one server, and of a Cluster.
func documentedUsers(t *testing.T) (single, cluster string) {
	t.Helper()
	document, err := os.ReadFile("../../docs/redis.md")
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^ACL SETUSER (fleetcall .*)$`).FindAllStringSubmatch(strings.ReplaceAll(string(document), ">PASSWORD", ">"+redisPassword), -1)
	if len(lines) != 2 {
		t.Fatalf("docs/redis.md has %d users, want one for a server and one for a Cluster", len(lines))
	}
	return lines[0][1], lines[1][1]
}

// asUser is the URL for the documented user.
func asUser(url string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	return scheme + "://fleetcall:" + redisPassword + rest[strings.LastIndex(rest, "@"):]
}

// deployment is a Redis of one kind, which can lose a master if it can do
// without it.
type deployment struct {
	url   string
	nodes []*redis.Client
	kill  func() (waitFailover func())
}

func TestReplicasShareAQueryThroughEveryKindOfRedisByTLSAsTheDocumentedUser(t *testing.T) {
	secure := redisrig.NewTLS(t)
	user, clusterUser := documentedUsers(t)
	for _, c := range []struct {
		kind  string
		user  string
		start func(t *testing.T, args []string) deployment
	}{
		{"single", user, func(t *testing.T, args []string) deployment {
			server := redisrig.Start(t, args...)
			return deployment{url: server.URL(), nodes: []*redis.Client{server.Client()}}
		}},
		{"Cluster", clusterUser, func(t *testing.T, args []string) deployment {
			cluster := redisrig.StartCluster(t, args...)
			var nodes []*redis.Client
			for _, node := range cluster.Nodes() {
				nodes = append(nodes, node.Client())
			}
			return deployment{cluster.URL(), nodes, func() func() {
				killed := cluster.KillMaster("{1}")
				return func() { cluster.WaitFailover(killed) }
			}}
		}},
		{"Sentinel", user, func(t *testing.T, args []string) deployment {
			sentinel := redisrig.StartSentinel(t, args...)
			return deployment{sentinel.URL(), []*redis.Client{sentinel.Master().Client()}, func() func() {
				killed := sentinel.KillMaster()
				return func() { sentinel.WaitFailover(killed) }
			}}
		}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel() // each waits for failovers, mostly
			d := c.start(t, append(secure.Args(), redisrig.ACL(c.user)...))
			var fleet []*running
			for i := range 2 {
				fleet = append(fleet, startProcess(t, secure.CAFile, "--redis-url", asUser(d.url), "--redis-timeout=5s", "--lease-ttl=5s", "--query-delay=3s", "--replica-id", fmt.Sprint("replica-", i)))
			}
			for _, r := range fleet {
				r.waitReady(t)
				r.waitConnected(t)
			}
			shareOneQuery(t, fleet)
			if refused := refusals(t, d.nodes); len(refused) > 0 {
				t.Errorf("Redis refused %q", refused)
			}
			rollcallNeedsItsRight(t, d, fleet[0])
			if d.kill != nil {
				survive(t, d, fleet)
			}
		})
	}
}

func (r *running) waitConnected(t *testing.T) {
	t.Helper()
	eventually(t, "connected", func() bool { return get[api.Health](t, r, "/health").Redis == api.RedisConnected })
}

// survive kills a master under the fleet's requests, and wants one query for
// all of them when its replica has taken over.
func survive(t *testing.T, d deployment, fleet []*running) {
	t.Helper()
	waitFailover := d.kill()
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() { fleet[i%2].expect(t, fmt.Sprint("/product/coalesced/", 1+i/2), http.StatusOK) })
	}
	waitFailover()
	all.Wait()
	for _, r := range fleet {
		r.waitConnected(t) // though nobody asks for anything else
		eventually(t, "in the roll call", func() bool { return len(get[api.Stats](t, r, "/stats?scope=fleet").Replicas) == len(fleet) })
		eventually(t, "in use of Redis", func() bool {
			// Of another product than they will share: the end of its flight may
			// reach Redis after its caller, by as long as a connection's dial takes.
			return r.expect(t, "/product/coalesced/2", http.StatusOK).Get("X-Coalesce-Role") != "fallback"
		})
	}
	shareOneQuery(t, fleet)
}

// rollcallNeedsItsRight shows that the documented user has one right for the sake of
// /stats?scope=fleet, which the tier does without.
func rollcallNeedsItsRight(t *testing.T, d deployment, r *running) {
	t.Helper()
	for _, change := range []string{"-", "+"} {
		for _, node := range d.nodes {
			if err := node.Do(context.Background(), "ACL", "SETUSER", "fleetcall", change+"pubsub|numsub").Err(); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "told by the note with "+change+"pubsub|numsub", func() bool {
			return (get[api.Stats](t, r, "/stats?scope=fleet").Note == "") == (change == "+")
		})
	}
}

// refusals returns what Redis refused to the documented user.
func refusals(t *testing.T, nodes []*redis.Client) (all []string) {
	t.Helper()
	for _, node := range nodes {
		entries, err := node.ACLLog(context.Background(), 1000).Result()
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if e.Username == "fleetcall" {
				all = append(all, e.Reason+" "+e.Object)
			}
		}
	}
	return all
}

// shareOneQuery sends 100 requests at once and wants one query, as the fleet
// itself counts them.
func shareOneQuery(t *testing.T, fleet []*running) {
	t.Helper()
	if status, _, body := fleet[0].send(t, http.MethodPost, "/stats/reset?scope=fleet"); status != http.StatusOK {
		t.Errorf("reset: %d %s", status, body)
	}
	const requests = 100
	var all sync.WaitGroup
	for i := range requests {
		all.Go(func() { fleet[i%len(fleet)].expect(t, "/product/coalesced/1", http.StatusOK) })
	}
	all.Wait()
	st := fleet[1].wholeFleet(t, len(fleet))
	var ids []string
	for _, r := range st.Replicas {
		ids = append(ids, r.Replica)
	}
	slices.Sort(ids)
	if !slices.Equal(ids, []string{"replica-0", "replica-1"}) || st.Note != "" {
		t.Errorf("the fleet's stats are those of %q: %s", ids, st.Note)
	}
	if st.Database.Queries != 1 || st.Misses != 1 || st.TotalRequests != requests || st.Tiers.Distributed == nil || st.Tiers.Distributed.Followers != uint64(len(fleet)-1) {
		t.Errorf("%d queries, %+v, %+v", st.Database.Queries, st, st.Tiers.Distributed)
	}
}

func TestEveryNodeOfAClusterHasACertificateOfItsOwn(t *testing.T) {
	client, _, err := newRedis("rediss://a:1,b:2", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if o := client.(*redis.ClusterClient).Options(); o.TLSConfig == nil || o.TLSConfig.ServerName != "" {
		t.Errorf("TLS settings for every node: %+v", o.TLSConfig)
	}
}

func TestCertificateOfAnUnknownAuthorityIsNotTrusted(t *testing.T) {
	secure, other := redisrig.NewTLS(t), redisrig.NewTLS(t)
	server := redisrig.Start(t, secure.Args()...)
	r := startProcess(t, other.CAFile, "--redis-url", server.URL(), "--query-delay=1ms")
	r.waitReady(t)
	if h := get[api.Health](t, r, "/health"); h.Redis != api.RedisDegraded {
		t.Errorf("/health says %+v", h)
	}
	r.expect(t, "/product/coalesced/1", http.StatusOK)
	eventually(t, "the log says why", func() bool { return strings.Contains(r.log.String(), "certificate signed by unknown authority") })
}
