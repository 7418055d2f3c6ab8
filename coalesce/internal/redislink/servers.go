package redislink

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// sweepAfter is how long a server of a Cluster may go unasked before it is dropped:
// the shape of a Cluster changes.
const sweepAfter = time.Minute

// Server is the health of one server.
type Server struct {
	Address string
	Since   time.Time // it has been up, or down, since then
	Why     error     // nil: it is up
}

// Servers returns the health of every server, by address.
func (l *Link) Servers() []Server {
	l.mu.RLock()
	all := make([]Server, 0, len(l.servers))
	for _, s := range l.servers {
		all = append(all, s.state())
	}
	l.mu.RUnlock()
	slices.SortFunc(all, func(a, b Server) int { return cmp.Compare(a.Address, b.Address) })
	return all
}

// Heard is called when anything came from a server beside the replies to the link's own
// commands, such as a message of a subscription. Without a Cluster, the address does not
// matter.
func (l *Link) Heard(address string) {
	if s := l.serverAt(address); s != nil {
		s.heard.Add(1)
	}
}

// Doubt is called when a connection to a server was lost, beside the link's own: a probe tells
// whether the server is up. Without a Cluster, the address does not matter.
func (l *Link) Doubt(address string) {
	if s := l.serverAt(address); s != nil {
		s.ask()
	}
}

// serverAt returns the server at an address; nil: nobody has asked it.
func (l *Link) serverAt(address string) *server {
	if l.only != nil {
		return l.only
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.servers[address]
}

// firstAddress returns the address of the client's server. On a Cluster, that is a stand-in
// for all servers: commands go to it until the client knows where the slots are.
func firstAddress(client redis.UniversalClient) string {
	switch c := client.(type) {
	case *redis.Client:
		if address := c.Options().Addr; address != "FailoverClient" {
			return address
		}
		return "Sentinel's master" // it changes, and the client does not tell
	case *redis.ClusterClient:
		return strings.Join(c.Options().Addrs, ",")
	}
	return ""
}

// serverOf returns the server that has the key. It does not wait.
func (l *Link) serverOf(key string) *server {
	if l.only != nil {
		return l.only
	}
	address := l.masterOf(key)
	l.mu.RLock()
	s := l.servers[address]
	l.mu.RUnlock()
	if s != nil {
		return s
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if s = l.servers[address]; s == nil {
		s = l.newServer(address)
		s.closed = l.closed
		l.servers[address] = s
	}
	return s
}

// masterOf returns the address of the server of a Cluster that has the key.
func (l *Link) masterOf(key string) string {
	if l.located.Load() { // otherwise the client would ask a server now
		if client, err := l.cluster.MasterForKey(context.Background(), key); err == nil {
			return client.Options().Addr
		}
	}
	return firstAddress(l.cluster)
}

// locate is called when a server of a Cluster has answered: the client has asked where
// the slots are, and the stand-in has had its day.
func (l *Link) locate(s *server, key string) {
	if !l.located.Load() && !l.located.Swap(true) {
		l.dropMoved(s, key)
	}
}

// reload has the client of a Cluster ask where the slots are, in the background: a
// master that is gone does not make it look for the successor.
func (l *Link) reload() {
	if l.cluster != nil {
		l.cluster.ReloadState(context.Background())
	}
}

// dropUnused drops the servers of a Cluster that have not been asked since the last time.
func (l *Link) dropUnused() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	for _, s := range l.servers {
		if s.unused() {
			l.drop(s)
		}
	}
	l.sweep.Reset(sweepAfter)
}

// drop wants l.mu held. Requests on their way are answered all the same, and those who
// wait until s is up are called.
func (l *Link) drop(s *server) {
	if l.servers[s.address] == s {
		delete(l.servers, s.address)
	}
	s.close()
	s.mu.Lock()
	waiting := s.whenUp
	s.whenUp = nil
	s.mu.Unlock()
	for _, f := range waiting {
		go f() // it may ask for another server
	}
}

// dropMoved drops a server of a Cluster that has come up because its keys have another.
func (l *Link) dropMoved(s *server, key string) {
	if l.cluster == nil || l.masterOf(key) == s.address {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop(s)
}
