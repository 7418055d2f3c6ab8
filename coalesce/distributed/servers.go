package distributed

import (
	"context"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
)

// ServerState says whether a Redis server is used.
type ServerState string

// The states of a server.
const (
	ServerUp   ServerState = "up"   // commands are sent to it
	ServerDown ServerState = "down" // nothing but probes is sent to it
)

// ServerStats is the health of one Redis server, as this replica finds it.
type ServerStats struct {
	Address string
	State   ServerState
	Since   time.Time // it has been in this state since then
	Why     string    // "" when it is up; otherwise "<kind>: <error>", of the failure that the outage began with
}

// ServerHook is told of each change of a server's health, one after the other.
type ServerHook interface {
	Server(change ServerChange)
}

// ServerChange is a change of a Redis server's health.
type ServerChange struct {
	Address string
	State   ServerState   // from now on
	Kind    string        // of the failure that the outage began with, as in FailureKinds
	Err     error         // that failure
	After   time.Duration // how long the server was in the state before
}

// checkClient logs that the client is for one server where that is one of a Cluster. Nothing
// else would tell: the other servers' keys are refused, and each replica runs its own
// function for them.
func (f *Fleet) checkClient() {
	if !f.oneServer || f.checked.Load() {
		return
	}
	clustered, err := f.link.Clustered(context.Background())
	if err != nil {
		return // it is asked again on the next connection
	}
	if !f.checked.Swap(true) && clustered {
		f.set.log.Error("fleetcall: Redis is a Cluster, but the client is one for a single server: the keys of the Cluster's other servers are not shared. "+
			"make it with redis.NewClusterClient; fleetcall serve does so when it is started while Redis runs",
			"replica", f.set.replicaID, "server", f.link.Servers()[0].Address)
	}
}

// serverChanged logs a change, and tells the hooks.
func (f *Fleet) serverChanged(change redislink.Change) {
	attrs := []any{"replica", f.set.replicaID, "server", change.Address}
	told := ServerChange{
		Address: change.Address, State: ServerUp, Err: change.Why, After: change.After,
		Kind: redislink.FailureKind(change.Why),
	}
	if change.Down {
		told.State = ServerDown
		f.set.log.Warn("fleetcall: Redis server down", append(attrs, "kind", told.Kind, "error", told.Err)...)
	} else {
		f.set.log.Info("fleetcall: Redis server up", append(attrs, "down", told.After)...)
	}
	f.set.hooks.serverChanged(told)
}

// isDown says whether the server of the key that a channel is of is down.
func (f *Fleet) isDown(channel string) bool {
	select {
	case <-f.link.Down(channel):
		return true
	default:
		return false
	}
}

func (f *Fleet) serverStats() []ServerStats {
	servers := f.link.Servers()
	all := make([]ServerStats, len(servers))
	for i, s := range servers {
		all[i] = ServerStats{Address: s.Address, State: ServerUp, Since: s.Since}
		if s.Why != nil {
			all[i].State = ServerDown
			all[i].Why = redislink.FailureKind(s.Why) + ": " + s.Why.Error()
		}
	}
	return all
}
