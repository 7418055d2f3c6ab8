package distributed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestOnACluster(t *testing.T) {
	t.Parallel()
	cluster := redisrig.StartCluster(t)
	t.Run("a client for one server is named in the log", func(t *testing.T) { aClientForOneServer(t, cluster) })
	t.Run("every key of every slot is run once", func(t *testing.T) { everyKeyIsRunOnce(t, cluster) })
	t.Run("forget reaches every replica", func(t *testing.T) { forgetReachesEveryReplica(t, cluster) })
	t.Run("a slot moves under its flights", func(t *testing.T) { aSlotMoves(t, cluster) })
	t.Run("a master dies under its flights", func(t *testing.T) { aMasterDies(t, cluster) })
}

// aClientForOneServer is what a program makes whose Cluster has one name. It shares what its
// one server has the slots of, and nothing else.
func aClientForOneServer(t *testing.T, cluster *redisrig.Cluster) {
	var log, quiet logged
	openFleet(t, cluster.Nodes()[0], distributed.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	eventually(t, "it is logged", func() bool {
		return strings.Contains(log.String(), "Redis is a Cluster, but the client is one for a single server")
	})
	single := openFleet(t, redisrig.Start(t), distributed.WithLogger(slog.New(slog.NewTextHandler(&quiet, nil))))
	g, err := distributed.NewGroup[string](single, "g")
	if err != nil {
		t.Fatal(err)
	}
	if _, role, err := g.Do(context.Background(), "k", value); role != coalesce.Leader || err != nil || strings.Contains(quiet.String(), "Cluster") {
		t.Errorf("one server: %v, %v, %s", role, err, quiet.String())
	}
}

func everyKeyIsRunOnce(t *testing.T, cluster *redisrig.Cluster) {
	r := newReplicas(t, onCluster(cluster), distributed.WithInlineLimit(1<<10), distributed.WithNamespace("many"))
	large := strings.Repeat("large ", 1000)
	keys := manyKeys(240)
	kind := func(key string) int { return slices.Index(keys, key) % 3 }
	h := r.hold(keys, func(key string) (string, error) {
		switch kind(key) {
		case 0:
			return key, nil
		case 1:
			return large + key, nil // which is fetched
		}
		return "", fmt.Errorf("%s: %w", key, errKnown)
	})
	for _, node := range cluster.Nodes() {
		checkChannels(t, node.Client())
	}
	f := h.end()
	if err := f.shared(); err != nil {
		t.Error(err)
	}
	for key, answers := range f.answers {
		for _, a := range answers {
			right := a.err == nil && a.val == key
			switch kind(key) {
			case 1:
				right = a.err == nil && a.val == large+key
			case 2:
				right = errors.Is(a.err, errKnown) && a.err.Error() == key+": known to every replica"
			}
			if !right {
				t.Fatalf("%s: %+v", key, a)
			}
		}
	}
	if n := r.redisErrors(); n != 0 {
		t.Errorf("%d errors of Redis", n)
	}
}

// checkChannels wants a master to have flights, and their channels to be
// sharded: others would cross the cluster's bus. A replica of the fleet has one
// connection to each shard for all of them, and one more somewhere for the
// control channel.
func checkChannels(t *testing.T, node *redis.Client) {
	ctx := context.Background()
	role, err := node.Do(ctx, "ROLE").Slice()
	if err != nil {
		t.Error(err)
		return
	}
	if plain := node.PubSubChannels(ctx, "many:test:{*").Val(); len(plain) > 0 {
		t.Errorf("channels of keys are not sharded: %q", plain[:1])
	}
	if role[0] != "master" {
		return
	}
	leases, err := node.Keys(ctx, "many:*:lease").Result()
	if err != nil || len(leases) == 0 {
		t.Errorf("a master has none of the flights: %v", err)
	}
	eventually(t, "each key's two followers listen to its sharded channel", func() bool {
		channels := node.PubSubShardChannels(ctx, "many:test:{*").Val()
		total := int64(0)
		for _, n := range node.PubSubShardNumSub(ctx, channels...).Val() {
			total += n
		}
		return len(channels) == len(leases) && total == 2*int64(len(leases))
	})
	clients, err := node.Do(ctx, "CLIENT", "LIST", "TYPE", "PUBSUB").Text()
	if err != nil {
		t.Error(err)
	}
	if n := strings.Count(clients, "ssub="); n-strings.Count(clients, "ssub=0 ") > replicaCount {
		t.Errorf("more connections than replicas for sharded channels:\n%s", clients)
	}
}

func forgetReachesEveryReplica(t *testing.T, cluster *redisrig.Cluster) {
	r := newReplicas(t, onCluster(cluster), distributed.WithNamespace("forget"))
	eventually(t, "every replica listens", func() bool {
		n := 0
		for _, node := range cluster.Nodes() {
			n += len(controlChannels("forget", node.Client()))
		}
		return n == replicaCount
	})
	for _, key := range manyKeys(6) { // of more than one shard
		h := r.hold([]string{key}, func(string) (string, error) { return "old", nil })
		if err := r.groups[0].Forget(context.Background(), key); err != nil {
			t.Error(err)
		}
		for i, g := range r.groups {
			eventually(t, "a new caller gets a new flight", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				v, _, err := g.Do(ctx, key, func(context.Context) (string, error) { return "new", nil })
				if i == 0 && err != nil {
					t.Errorf("on the replica that forgot: %v", err)
				}
				return v == "new" && err == nil
			})
		}
		f := h.end()
		if err := f.shared(); err != nil {
			t.Error(err)
		}
		for _, a := range f.answers[key] {
			if a.val != "old" || a.err != nil {
				t.Errorf("a caller from before Forget: %+v", a)
			}
		}
	}
}

// aSlotMoves holds a slot halfway, where Redis refuses commands of several keys
// (TRYAGAIN) whose keys are not all there.
func aSlotMoves(t *testing.T, cluster *redisrig.Cluster) {
	const key = "moving"
	// Who waits for the end of such a lease runs into the flight timeout.
	long := distributed.WithLeaseTTL(time.Minute)
	before := newReplicas(t, onCluster(cluster), distributed.WithNamespace("before"), long)
	during := newReplicas(t, onCluster(cluster), distributed.WithNamespace("during"), long)

	underWay := before.hold([]string{key}, theValue)
	migration := cluster.BeginMigration("{"+key+"}", cluster.OtherMaster("{"+key+"}"))
	migration.MoveKeys()
	underWay.release()
	eventually(t, "the outcome cannot be shared yet", func() bool { return before.finishes.Load() > 0 })

	if err := during.hold([]string{key}, theValue).end().answered(); err != nil {
		t.Errorf("a flight that begins halfway: %v", err)
	}
	if during.redisErrors() == 0 {
		t.Error("the slot was not halfway")
	}
	// What is wrong with one slot keeps nobody from sharing others.
	if err := during.hold(manyKeys(30), theValue).end().shared(); err != nil {
		t.Errorf("other slots: %v", err)
	}

	migration.Finish()
	if err := underWay.wait().shared(); err != nil {
		t.Errorf("the flight that was under way: %v", err)
	}
	for _, r := range []*replicas{before, during} {
		if err := r.hold([]string{key}, theValue).end().shared(); err != nil {
			t.Errorf("after the move: %v", err)
		}
	}

	// The old master sends away those who listen.
	waiting := during.hold([]string{key}, theValue)
	cluster.MigrateSlot("{"+key+"}", cluster.OtherMaster("{"+key+"}"))
	if err := waiting.end().shared(); err != nil {
		t.Errorf("a slot that moves while all wait: %v", err)
	}
}

func aMasterDies(t *testing.T, cluster *redisrig.Cluster) {
	r := newReplicas(t, onCluster(cluster), distributed.WithNamespace("dies"), distributed.WithRedisTimeout(500*time.Millisecond), distributed.WithLeaseTTL(2*time.Second))
	keys := manyKeys(30)
	r.recovers(keys) // on a busy machine, connecting may take longer than the timeout
	// A replica that nobody else shares flights with has no subscription to
	// tell it that a master is gone.
	lone := newReplicas(t, onCluster(cluster), distributed.WithNamespace("lone"), distributed.WithRedisTimeout(500*time.Millisecond)).groups[0]
	leads := func() bool {
		_, role, err := lone.Do(context.Background(), keys[0], value)
		return err == nil && role == coalesce.Leader
	}
	eventually(t, "the lone replica leads", leads)

	h := r.hold(keys, theValue)
	killed := cluster.KillMaster("{" + keys[0] + "}")
	if err := h.end().answered(); err != nil {
		t.Errorf("in flight: %v", err)
	}
	stop := r.load(keys)
	cluster.WaitFailover(killed)
	stop()
	r.recovers(keys)
	eventually(t, "the lone replica leads again", leads)
}
