package redisrig

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/netrig"

	"github.com/redis/go-redis/v9"
)

const (
	clusterMasters = 3
	clusterSlots   = 16384
	// A node counts as failed after this many milliseconds without an answer. Only
	// while a test has killed a node is the time short, so that a failover is quick.
	// Otherwise it is long, so that a busy machine does not cause a failover that no
	// test wants.
	shortTimeout = "1500"
	longTimeout  = "30000"
)

// Cluster is a private Redis Cluster of three masters, each with one replica.
type Cluster struct {
	t     testing.TB
	nodes []*Server
}

// StartCluster starts a Redis Cluster. It waits until every node reports the cluster as
// complete and every replica has its master's data. args are added to the command line
// of each node. The nodes are stopped when the test ends.
func StartCluster(t testing.TB, args ...string) *Cluster {
	t.Helper()
	return StartClusterOn(t, nil, args...)
}

// StartClusterOn is StartCluster with each node on a host of its own. A nil network has none.
func StartClusterOn(t testing.TB, network *netrig.Network, args ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	args = append([]string{
		"--cluster-enabled", "yes", "--cluster-node-timeout", shortTimeout,
		"--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0",
	}, args...)
	for range 2 * clusterMasters {
		node := newServer(t, network, args)
		node.bus = rig.FreePort(t)
		node.launch()
		c.nodes = append(c.nodes, node)
	}
	c.join()
	c.config("cluster-node-timeout", longTimeout)
	return c
}

// join makes a cluster of nodes that do not know each other yet.
func (c *Cluster) join() {
	c.t.Helper()
	masters, replicas := c.nodes[:clusterMasters], c.nodes[clusterMasters:]
	for i, node := range masters {
		first, last := clusterSlots*i/clusterMasters, clusterSlots*(i+1)/clusterMasters-1
		node.do("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		node.do("CLUSTER", "ADDSLOTSRANGE", first, last)
	}
	for i, node := range c.nodes {
		host, port, err := net.SplitHostPort(node.Addr)
		if err != nil {
			c.t.Fatal(err)
		}
		// One meeting for each node would be enough, but the gossip would need more
		// time.
		for _, other := range c.nodes[:i] {
			other.do("CLUSTER", "MEET", host, port, node.bus)
		}
	}
	for i, replica := range replicas {
		master := masters[i].text("CLUSTER", "MYID")
		rig.Wait(c.t, "replica knows its master", func() error {
			return replica.newCommand("CLUSTER", "REPLICATE", master)
		})
	}
	c.WaitComplete()
}

// Nodes returns all nodes, including those that do not run.
func (c *Cluster) Nodes() []*Server { return c.nodes }

// Addrs returns the host:port of every node.
func (c *Cluster) Addrs() []string {
	addrs := make([]string, 0, len(c.nodes))
	for _, node := range c.nodes {
		addrs = append(addrs, node.Addr)
	}
	return addrs
}

// URL returns the addresses of all nodes in the form of REDIS_URL: separated by commas.
func (c *Cluster) URL() string { return c.nodes[0].url("redis", strings.Join(c.Addrs(), ",")) }

// Client returns a client for the test itself. It is closed when the test ends.
func (c *Cluster) Client() *redis.ClusterClient {
	node := c.nodes[0]
	client := redis.NewClusterClient(&redis.ClusterOptions{
		Addrs: c.Addrs(), Username: node.username, Password: node.password, TLSConfig: node.tls, ContextTimeoutEnabled: true,
		// After a connection error, the client looks for another master only when it
		// loads the cluster's state again.
		ClusterStateReloadInterval: 100 * time.Millisecond,
	})
	c.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Master returns the node that serves the key's slot.
func (c *Cluster) Master(key string) *Server {
	c.t.Helper()
	slot := c.Slot(key)
	for _, r := range c.slots(c.running()[0]) {
		if r.first <= slot && slot <= r.last {
			return c.node(r.master)
		}
	}
	c.t.Fatalf("fleetcall: no node serves slot %d", slot)
	return nil
}

// Slot returns the key's slot.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	return c.running()[0].number("CLUSTER", "KEYSLOT", key)
}

// OtherMaster returns a master that does not serve the key's slot.
func (c *Cluster) OtherMaster(key string) *Server {
	c.t.Helper()
	own := c.Master(key)
	for _, r := range c.slots(own) {
		if r.master != own.Addr {
			return c.node(r.master)
		}
	}
	c.t.Fatal("fleetcall: the cluster has one master only")
	return nil
}

// KillMaster kills the node that serves the key's slot, and returns it. Its replica
// takes over after a few seconds. WaitFailover waits for that.
func (c *Cluster) KillMaster(key string) *Server {
	c.t.Helper()
	master := c.Master(key)
	c.config("cluster-node-timeout", shortTimeout)
	master.Kill()
	return master
}

// WaitFailover waits until the cluster is complete without the killed master.
func (c *Cluster) WaitFailover(killed *Server) {
	c.t.Helper()
	rig.Wait(c.t, "failover", func() error {
		for _, node := range c.running() {
			for _, r := range c.slots(node) {
				if r.master == killed.Addr {
					return fmt.Errorf("%s still is a master, says %s", killed.Addr, node.Addr)
				}
			}
		}
		return nil
	})
	c.WaitComplete()
	c.config("cluster-node-timeout", longTimeout)
}

// WaitComplete waits until all running nodes agree on the master of every slot, and all
// running replicas have their master's data.
func (c *Cluster) WaitComplete() {
	c.t.Helper()
	rig.Wait(c.t, "complete cluster", func() error {
		first := ""
		for _, node := range c.running() {
			info := node.text("CLUSTER", "INFO")
			if !strings.Contains(info, "cluster_state:ok\r\n") || !strings.Contains(info, fmt.Sprintf("cluster_slots_ok:%d\r\n", clusterSlots)) {
				return fmt.Errorf("%s says: %s", node.Addr, info)
			}
			// A node must know all others, because it votes only for replicas that it
			// knows.
			if known := knownNodes(node.text("CLUSTER", "NODES")); known < len(c.running()) {
				return fmt.Errorf("%s knows %d of %d nodes", node.Addr, known, len(c.running()))
			}
			masters := c.masters(node)
			if first == "" {
				first = masters
			}
			if masters != first {
				return fmt.Errorf("%s says %s, another %s", node.Addr, masters, first)
			}
			replication := node.text("INFO", "replication")
			if strings.Contains(replication, "role:slave") && !strings.Contains(replication, "master_link_status:up") {
				return fmt.Errorf("%s says: %s", node.Addr, replication)
			}
		}
		return nil
	})
}

// Migration moves a slot from one master to another, in steps that the test controls.
type Migration struct {
	c        *Cluster
	slot     int
	from, to *Server
}

// BeginMigration starts to move the key's slot. From now on, the old master redirects
// requests for keys that it does not have to the new one with ASK.
func (c *Cluster) BeginMigration(key string, to *Server) *Migration {
	c.t.Helper()
	m := &Migration{c: c, slot: c.Slot(key), from: c.Master(key), to: to}
	m.to.do("CLUSTER", "SETSLOT", m.slot, "IMPORTING", m.from.text("CLUSTER", "MYID"))
	m.from.do("CLUSTER", "SETSLOT", m.slot, "MIGRATING", m.to.text("CLUSTER", "MYID"))
	return m
}

// MoveKeys moves the keys that are in the slot now.
func (m *Migration) MoveKeys() {
	m.c.t.Helper()
	host, port, err := net.SplitHostPort(m.to.Addr)
	if err != nil {
		m.c.t.Fatal(err)
	}
	for {
		keys := m.from.list("CLUSTER", "GETKEYSINSLOT", m.slot, 100)
		if len(keys) == 0 {
			return
		}
		args := []any{"MIGRATE", host, port, "", 0, 10_000}
		if m.to.password != "" {
			args = append(args, "AUTH2", m.to.username, m.to.password)
		}
		m.from.do(append(append(args, "KEYS"), keys...)...) // the reply NOKEY, for keys that have expired meanwhile, is no error
	}
}

// Finish gives the slot to the new master and waits until every node knows it.
func (m *Migration) Finish() {
	m.c.t.Helper()
	m.MoveKeys()
	id := m.to.text("CLUSTER", "MYID")
	m.to.do("CLUSTER", "SETSLOT", m.slot, "NODE", id)
	m.from.do("CLUSTER", "SETSLOT", m.slot, "NODE", id)
	m.c.WaitComplete()
}

// Failover has the replica of the node that serves the key's slot take over from it while it
// runs, and returns the node. WaitFailover waits for that.
func (c *Cluster) Failover(key string) *Server {
	c.t.Helper()
	master := c.Master(key)
	for _, e := range master.list("CLUSTER", "SLOTS") {
		nodes := e.([]any)[2:]
		addr := func(node any) string { return fmt.Sprintf("%v:%v", node.([]any)[0], node.([]any)[1]) }
		if addr(nodes[0]) == master.Addr {
			c.node(addr(nodes[1])).do("CLUSTER", "FAILOVER")
			break
		}
	}
	return master
}

// MigrateSlot moves the key's slot with all its keys in one step.
func (c *Cluster) MigrateSlot(key string, to *Server) {
	c.t.Helper()
	c.BeginMigration(key, to).Finish()
}

// knownNodes counts those nodes in a reply to CLUSTER NODES that are up and serve slots
// or are replicas.
func knownNodes(reply string) int {
	n := 0
	for line := range strings.Lines(reply) {
		fields := strings.Fields(line) // id, address, flags, five more, slots
		flags := strings.Split(fields[2], ",")
		has := func(flag string) bool { return slices.Contains(flags, flag) }
		if (has("slave") || len(fields) > 8) && !has("handshake") && !has("fail") && !has("fail?") {
			n++
		}
	}
	return n
}

func (c *Cluster) running() []*Server {
	return slices.DeleteFunc(slices.Clone(c.nodes), func(node *Server) bool { return !node.proc.Running() })
}

func (c *Cluster) config(name, value string) {
	c.t.Helper()
	for _, node := range c.running() {
		node.do("CONFIG", "SET", name, value)
	}
}

func (c *Cluster) node(addr string) *Server {
	c.t.Helper()
	for _, node := range c.nodes {
		if node.Addr == addr {
			return node
		}
	}
	c.t.Fatalf("fleetcall: %s is no node of this cluster", addr)
	return nil
}

// slotRange is a range of slots and the master that serves it.
type slotRange struct {
	first, last int
	master      string // host:port
}

// slots returns which master serves which slots, as this node sees it.
func (c *Cluster) slots(node *Server) []slotRange {
	c.t.Helper()
	var all []slotRange
	for _, entry := range node.list("CLUSTER", "SLOTS") {
		e := entry.([]any) // first, last, master, its replicas
		master := e[2].([]any)
		all = append(all, slotRange{int(e[0].(int64)), int(e[1].(int64)), fmt.Sprintf("%v:%v", master[0], master[1])})
	}
	return all
}

// masters returns the same as slots, as a text that can be compared.
func (c *Cluster) masters(node *Server) string {
	c.t.Helper()
	var all []string
	for _, r := range c.slots(node) {
		all = append(all, fmt.Sprintf("%05d-%05d %s", r.first, r.last, r.master))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// newCommand sends a command on a new connection.
func (r *Server) newCommand(args ...any) error {
	_, err := r.reply(args)
	return err
}

func (r *Server) reply(args []any) (any, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client := r.newClient()
	defer func() { _ = client.Close() }()
	return client.Do(ctx, args...).Result()
}

// do sends a command that must succeed.
func (r *Server) do(args ...any) any {
	r.t.Helper()
	reply, err := r.reply(args)
	if err != nil {
		r.t.Fatalf("fleetcall: %v on %s: %v", args, r.Addr, err)
	}
	return reply
}

func (r *Server) text(args ...any) string {
	r.t.Helper()
	switch reply := r.do(args...).(type) {
	case string:
		return reply
	default:
		r.t.Fatalf("fleetcall: %v on %s: %v", args, r.Addr, reply)
		return ""
	}
}

func (r *Server) number(args ...any) int {
	r.t.Helper()
	n, ok := r.do(args...).(int64)
	if !ok {
		r.t.Fatalf("fleetcall: %v on %s: no number", args, r.Addr)
	}
	return int(n)
}

func (r *Server) list(args ...any) []any {
	r.t.Helper()
	list, ok := r.do(args...).([]any)
	if !ok {
		r.t.Fatalf("fleetcall: %v on %s: no list", args, r.Addr)
	}
	return list
}
