package redisrig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/netrig"

	"github.com/redis/go-redis/v9"
)

const (
	// SentinelMaster is the name by which sentinels know the master.
	SentinelMaster = "mymaster"

	dataNodes = 3
	sentinels = 3
)

// Sentinel is a private Redis master with two replicas, and three sentinels that watch
// them.
type Sentinel struct {
	t         testing.TB
	nodes     []*Server
	sentinels []*Server
}

// StartSentinel starts a master, two replicas and three sentinels, and waits until they
// know each other. args are added to the command lines of the master and the replicas.
// All servers are stopped when the test ends.
func StartSentinel(t testing.TB, args ...string) *Sentinel {
	t.Helper()
	return StartSentinelOn(t, nil, args...)
}

// StartSentinelOn is StartSentinel with each server on a host of its own. A nil network has
// none.
func StartSentinelOn(t testing.TB, network *netrig.Network, args ...string) *Sentinel {
	t.Helper()
	s := &Sentinel{t: t}
	for range dataNodes {
		node := newServer(t, network, append([]string{"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"}, args...))
		node.launch()
		s.nodes = append(s.nodes, node)
	}
	host, port, err := net.SplitHostPort(s.nodes[0].Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, replica := range s.nodes[1:] {
		replica.do("REPLICAOF", host, port)
	}
	for range sentinels {
		s.sentinels = append(s.sentinels, s.startSentinel(network, host, port, args))
	}
	s.waitReady()
	return s
}

// startSentinel starts one sentinel. It asks its own clients for no user and no
// password.
func (s *Sentinel) startSentinel(network *netrig.Network, host, port string, args []string) *Server {
	s.t.Helper()
	node := s.nodes[0]
	var secure []string
	if i := slices.Index(args, "--tls-ca-cert-file"); i >= 0 {
		secure = args[i : i+len((&TLS{}).Args())]
	}
	sentinel := newServer(s.t, network, append([]string{"--sentinel"}, secure...))
	sentinel.config = filepath.Join(sentinel.dir, "sentinel.conf") // the sentinel rewrites this file
	if err := os.WriteFile(sentinel.config, nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	sentinel.launch()
	sentinel.do("SENTINEL", "MONITOR", SentinelMaster, host, port, 2)
	set := func(name, value string) { sentinel.do("SENTINEL", "SET", SentinelMaster, name, value) }
	set("down-after-milliseconds", longTimeout)
	if node.username != "" {
		set("auth-user", node.username)
	}
	if node.password != "" {
		set("auth-pass", node.password)
	}
	set("failover-timeout", "5000")
	return sentinel
}

// waitReady waits until every sentinel is able to start a failover.
func (s *Sentinel) waitReady() {
	s.t.Helper()
	rig.Wait(s.t, "the sentinels", func() error {
		for _, sentinel := range s.sentinels {
			if _, err := sentinel.reply([]any{"SENTINEL", "CKQUORUM", SentinelMaster}); err != nil {
				return err
			}
			state := sentinel.masterState()
			if state["num-other-sentinels"] != fmt.Sprint(sentinels-1) || state["num-slaves"] != fmt.Sprint(dataNodes-1) || state["flags"] != "master" {
				return fmt.Errorf("%s says: %v", sentinel.Addr, state)
			}
		}
		return s.replicated()
	})
}

// replicated returns an error while a replica does not have its master's data yet.
func (s *Sentinel) replicated() error {
	for _, node := range s.nodes {
		if !node.proc.Running() {
			continue
		}
		replication := node.text("INFO", "replication")
		if strings.Contains(replication, "role:slave") && !strings.Contains(replication, "master_link_status:up") {
			return fmt.Errorf("%s says: %s", node.Addr, replication)
		}
	}
	return nil
}

// masterState returns what a sentinel knows about the master.
func (r *Server) masterState() map[string]string {
	r.t.Helper()
	return asked(r, (*redis.SentinelClient).Master)
}

// replicaStates returns what a sentinel knows about each replica of the master.
func (r *Server) replicaStates() []map[string]string {
	r.t.Helper()
	return asked(r, (*redis.SentinelClient).Replicas)
}

// asked asks a sentinel.
func asked[S any, C interface{ Result() (S, error) }](r *Server, about func(*redis.SentinelClient, context.Context, string) C) S {
	r.t.Helper()
	client := redis.NewSentinelClient(&redis.Options{Addr: r.Addr, TLSConfig: r.tls, MaxRetries: -1})
	defer func() { _ = client.Close() }()
	state, err := about(client, context.Background(), SentinelMaster).Result()
	if err != nil {
		r.t.Fatalf("fleetcall: asking the sentinel %s: %v", r.Addr, err)
	}
	return state
}

// Addrs returns the host:port of every sentinel.
func (s *Sentinel) Addrs() []string {
	addrs := make([]string, 0, len(s.sentinels))
	for _, sentinel := range s.sentinels {
		addrs = append(addrs, sentinel.Addr)
	}
	return addrs
}

// URL returns the address of the sentinels in the form of REDIS_URL.
func (s *Sentinel) URL() string {
	return s.nodes[0].url("redis+sentinel", strings.Join(s.Addrs(), ",")) + "/" + SentinelMaster
}

// Client returns a client for the test itself. It follows the master and is closed when
// the test ends.
func (s *Sentinel) Client() *redis.Client {
	node := s.nodes[0]
	client := redis.NewFailoverClient(&redis.FailoverOptions{
		MasterName: SentinelMaster, SentinelAddrs: s.Addrs(),
		Username: node.username, Password: node.password, TLSConfig: node.tls, ContextTimeoutEnabled: true,
	})
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Master returns the server that all sentinels name as the master.
func (s *Sentinel) Master() *Server {
	s.t.Helper()
	var master *Server
	rig.Wait(s.t, "agreement on a master", func() error {
		var err error
		master, err = s.agreed()
		return err
	})
	return master
}

func (s *Sentinel) agreed() (*Server, error) {
	var agreed string
	for _, sentinel := range s.sentinels {
		reply := sentinel.list("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelMaster)
		addr := net.JoinHostPort(fmt.Sprint(reply[0]), fmt.Sprint(reply[1]))
		if agreed == "" {
			agreed = addr
		}
		if addr != agreed {
			return nil, fmt.Errorf("%s and %s", addr, agreed)
		}
	}
	for _, node := range s.nodes {
		if node.Addr == agreed {
			return node, nil
		}
	}
	return nil, fmt.Errorf("%s is none of the servers", agreed)
}

// KillMaster kills the master and returns it. A replica takes over after a few seconds.
// WaitFailover waits for that.
func (s *Sentinel) KillMaster() *Server {
	s.t.Helper()
	master := s.Master()
	s.downAfter(shortTimeout)
	master.Kill()
	return master
}

// Failover makes the sentinels replace the master while it is running, and returns the
// old master.
func (s *Sentinel) Failover() *Server {
	s.t.Helper()
	master := s.Master()
	s.sentinels[0].do("SENTINEL", "FAILOVER", SentinelMaster)
	return master
}

// WaitFailover waits until all sentinels name a master other than old, and returns it.
// If the old master runs, it acts as a master for about ten seconds more, until the
// sentinels tell it otherwise.
func (s *Sentinel) WaitFailover(old *Server) *Server {
	s.t.Helper()
	var master *Server
	rig.Wait(s.t, "failover", func() error {
		var err error
		if master, err = s.agreed(); err != nil {
			return err
		}
		if master == old {
			return errors.New("the old master is the master")
		}
		if role := master.list("ROLE")[0]; role != "master" {
			return fmt.Errorf("%s is a %v", master.Addr, role)
		}
		return nil
	})
	s.downAfter(longTimeout)
	return master
}

// downAfter sets the time in milliseconds after which a silent server counts as down.
func (s *Sentinel) downAfter(limit string) {
	s.t.Helper()
	for _, sentinel := range s.sentinels {
		sentinel.do("SENTINEL", "SET", SentinelMaster, "down-after-milliseconds", limit)
	}
}

// Nodes returns the master and its replicas, including those that do not run.
func (s *Sentinel) Nodes() []*Server { return s.nodes }

// Rejoin starts a server that has ended, empty and as a replica of the master, and waits
// until the sentinels know it as one.
func (s *Sentinel) Rejoin(node *Server) {
	s.t.Helper()
	host, port, err := net.SplitHostPort(s.Master().Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	node.Restart()
	node.do("REPLICAOF", host, port)
	rig.Wait(s.t, "the replica to be known", func() error {
		if err := s.replicated(); err != nil {
			return err
		}
		for _, sentinel := range s.sentinels {
			for _, replica := range sentinel.replicaStates() {
				if replica["flags"] != "slave" || replica["master-link-status"] != "ok" {
					return fmt.Errorf("%s says: %v", sentinel.Addr, replica)
				}
			}
		}
		return nil
	})
}
