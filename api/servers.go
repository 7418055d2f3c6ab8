package api

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RedisServer is the health of one Redis server: as a replica sees it, or as the
// replicas of a fleet do together.
type RedisServer struct {
	Address string  `json:"address"`
	State   string  `json:"state"` // up or down; over a fleet, down when any replica says so
	Since   float64 `json:"since"` // Unix seconds; over a fleet: since the first replica says down, or since the last one says up
	Why     string  `json:"why"`   // what failed; over a fleet, after the replicas that say down; empty when the server is up
}

const serverUp = "up"

// setRedisServers lists each server that a replica of the sum knows, sorted by address.
func (sum *Stats) setRedisServers() {
	if sum.Tiers.Distributed == nil {
		return
	}
	seen := map[string][]seenServer{}
	for _, replica := range sum.Replicas {
		if t := replica.Tiers.Distributed; t != nil {
			for _, server := range t.RedisServers {
				seen[server.Address] = append(seen[server.Address], seenServer{server, replica.Replica})
			}
		}
	}
	merged := []RedisServer{}
	for _, address := range slices.Sorted(maps.Keys(seen)) {
		merged = append(merged, merge(seen[address]))
	}
	sum.Tiers.Distributed.RedisServers = merged
}

// seenServer is a server as one replica sees it.
type seenServer struct {
	RedisServer
	by string
}

// merge returns what replicas say of one server. The reason is that of the replica which
// was the first to say that the server is down.
func merge(seen []seenServer) RedisServer {
	bySince := func(a, b seenServer) int { return cmp.Compare(a.Since, b.Since) }
	down := slices.DeleteFunc(slices.Clone(seen), func(s seenServer) bool { return s.State == serverUp })
	if len(down) == 0 {
		return slices.MaxFunc(seen, bySince).RedisServer
	}
	first := slices.MinFunc(down, bySince).RedisServer
	var replicas []string
	for _, s := range down {
		replicas = append(replicas, s.by)
	}
	slices.Sort(replicas)
	first.Why = fmt.Sprintf("on %s: %s", strings.Join(replicas, ", "), first.Why)
	return first
}
