package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const (
	troubledReplicas = 3
	troubledCallers  = 3 // of each replica, in a round
	troubledKeys     = 40
	troubledFunction = 100 * time.Millisecond
	redisTimeout     = 250 * time.Millisecond // the default, which all of them have
	leaseTTL         = 3 * time.Second        // likewise
)

// measureTrouble fills the report's section on what a fleet costs while a part of what
// it stands on is slow or gone.
func measureTrouble(b *bench) {
	redis.SetLogger(silence{}) // it tells of each connection that fails
	s := b.section("trouble", "In trouble")
	t := table{
		Title: fmt.Sprintf("%d replicas × %d callers, %d keys, a function of %v, round after round",
			troubledReplicas, troubledCallers, troubledKeys, troubledFunction),
		Columns: []string{"", "rounds", "executions a round", "fell back", "beyond the function, p50", "p99", "most"},
		Note: "A round is one key's: the callers of all replicas set out at once, and the next round begins when " +
			"each has its result. A replica whose write is held for longer than the function takes comes too late for its round.",
	}
	measureSlowTail(b, s, &t)
	measureDeadMaster(b, s, &t)
	s.Tables = append(s.Tables, t)
	measureFrozen(b, s)
	measureFreshness(b, s)
	measureLeaving(b, s)
}

// silence is a logger of go-redis.
type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

func (b *bench) lasting(d time.Duration) time.Duration {
	if b.quick {
		return d / 20
	}
	return d
}

// troubled is a fleet of replicas in this process, each with a client of its own.
type troubled struct {
	groups []*distributed.Group[[]byte]
	stop   []func()
	fail   atomic.Pointer[error] // the first of a call
}

func (f *troubled) add(client redis.UniversalClient, options ...distributed.Option) {
	group, stop := newGroupOn(client, options...)
	f.groups, f.stop = append(f.groups, group), append(f.stop, stop)
}

func (f *troubled) close() {
	var stopping sync.WaitGroup
	for _, stop := range f.stop {
		stopping.Go(stop)
	}
	stopping.Wait()
	if err := f.fail.Load(); err != nil {
		must(*err)
	}
}

// troubledOn returns a fleet whose replicas reach a Redis by these addresses.
func troubledOn(addrs ...string) *troubled {
	f := &troubled{}
	for i := range troubledReplicas {
		f.add(newClient(addrs[i%len(addrs)]))
	}
	f.warmUp()
	return f
}

// warmUp has each replica connect, and load the scripts.
func (f *troubled) warmUp() {
	for i := range f.groups {
		f.call(background(), i, fmt.Sprintf("warm-up-%d", i), 0)
	}
}

// outcome is what a call got.
type outcome struct {
	replica          int
	called, returned time.Time
	ran              execution
	role             coalesce.Role
}

// execution is one run of the function, which its result tells of.
type execution struct {
	replica      int
	began, ended time.Time
}

var epoch = time.Now()

func (e execution) encode() []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(e.replica))
	b = binary.BigEndian.AppendUint64(b, uint64(e.began.Sub(epoch)))
	return binary.BigEndian.AppendUint64(b, uint64(e.ended.Sub(epoch)))
}

func decodeExecution(b []byte) execution {
	if len(b) != 24 {
		must(fmt.Errorf("a caller got %d bytes of a result of 24", len(b)))
	}
	at := func(b []byte) time.Time { return epoch.Add(time.Duration(binary.BigEndian.Uint64(b))) }
	return execution{int(binary.BigEndian.Uint64(b)), at(b[8:]), at(b[16:])}
}

// call calls for a key at one replica.
func (f *troubled) call(ctx context.Context, replica int, key string, takes time.Duration) outcome {
	o := outcome{replica: replica, called: time.Now()}
	result, role, err := f.groups[replica].Do(ctx, key, func(context.Context) ([]byte, error) {
		e := execution{replica: replica, began: time.Now()}
		time.Sleep(takes) // the work that is shared
		e.ended = time.Now()
		return e.encode(), nil
	})
	o.returned, o.role = time.Now(), role
	if err != nil {
		err = fmt.Errorf("a caller of a troubled fleet got an error: %w", err)
		f.fail.CompareAndSwap(nil, &err)
		return o
	}
	o.ran = decodeExecution(result)
	return o
}

// rounds is what rounds of callers came to.
type rounds struct {
	flown, executions, fellBack int
	waits                       []time.Duration // beyond the function
}

func (r rounds) each() float64 { return float64(r.executions) / float64(max(r.flown, 1)) }

func (r rounds) row(name string) []string {
	return []string{
		name, thousands(r.flown), thousandths(r.each()), thousands(r.fellBack),
		milliseconds(float64(quantile(r.waits, 0.5))), milliseconds(float64(quantile(r.waits, 0.99))), milliseconds(float64(quantile(r.waits, 1))),
	}
}

// thousandths is count for figures whose target is near 1.
func thousandths(v float64) string { return fmt.Sprintf("%.3f", v) }

// fly flies round after round of each key, until the time is over.
func (f *troubled) fly(keys []string, lasting time.Duration) rounds {
	var all rounds
	var mu sync.Mutex
	var flying sync.WaitGroup
	end := time.Now().Add(lasting)
	for _, key := range keys {
		flying.Go(func() {
			time.Sleep(rand.N(troubledFunction)) // keys must not keep step, for no service's do
			for time.Now().Before(end) {
				round := f.round(key)
				mu.Lock()
				all.add(round)
				mu.Unlock()
				time.Sleep(2*time.Millisecond + rand.N(20*time.Millisecond)) // what the leader still has to send goes first
			}
		})
	}
	flying.Wait()
	return all
}

func (r *rounds) add(round []outcome) {
	r.flown++
	executions := map[execution]bool{}
	for _, o := range round {
		executions[o.ran] = true
		if o.role == coalesce.Fallback {
			r.fellBack++
		}
		r.waits = append(r.waits, max(0, o.returned.Sub(o.called)-troubledFunction))
	}
	r.executions += len(executions)
}

// round has the callers of all replicas call for a key at once.
func (f *troubled) round(key string) []outcome {
	outcomes := make([]outcome, len(f.groups)*troubledCallers)
	release := make(chan struct{})
	var ready, done sync.WaitGroup
	ready.Add(len(outcomes))
	for i := range outcomes {
		done.Go(func() {
			ready.Done()
			<-release
			outcomes[i] = f.call(background(), i%len(f.groups), key, troubledFunction)
		})
	}
	ready.Wait()
	close(release)
	done.Wait()
	return outcomes
}

func keysNamed(name string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s-%d", name, i)
	}
	return keys
}

// measureSlowTail holds some of what the replicas send.
func measureSlowTail(b *bench, s *section, t *table) {
	addr, stop := startRedis()
	defer stop()
	for _, c := range []struct {
		oneIn int
		most  float64 // executions a round
		name  string
	}{
		{0, 1.01, "nothing held"},
		{1000, 1.02, "1 in 1,000 writes held for 300 ms"},
		{100, 1.15, "1 in 100 writes held for 300 ms"},
	} {
		var addrs []string
		var ways []*holding
		for range troubledReplicas {
			way := startHolding(addr, c.oneIn, 300*time.Millisecond)
			ways, addrs = append(ways, way), append(addrs, way.addr)
		}
		f := troubledOn(addrs...)
		flown := f.fly(keysNamed("tail", troubledKeys), b.lasting(20*time.Second))
		f.close()
		held := int64(0)
		for _, way := range ways {
			way.close()
			held += way.held.Load()
		}
		name := c.name
		if c.oneIn > 0 {
			name += fmt.Sprintf(" (%d were)", held)
		}
		t.add(flown.row(name)...)
		s.within("executions a round, "+c.name, flown.each(), c.most, thousandths)
	}
}

// measureDeadMaster kills or freezes one of a Cluster's three masters, for less time than
// its replica takes to succeed it, and calls for keys of all masters.
func measureDeadMaster(b *bench, s *section, t *table) {
	for _, c := range []struct {
		name string
		hit  func(*redisrig.Server)
	}{
		{"killed", (*redisrig.Server).Kill},
		{"frozen", (*redisrig.Server).Freeze},
	} {
		h := &rig.Host{}
		func() {
			defer h.Close()
			cluster := redisrig.StartCluster(h)
			f := &troubled{}
			for range troubledReplicas {
				f.add(redis.NewClusterClient(&redis.ClusterOptions{Addrs: cluster.Addrs(), ContextTimeoutEnabled: true}))
			}
			defer f.close()
			f.warmUp()
			dead := cluster.Master("dead")
			var living, dying []string
			for i := 0; len(living) < troubledKeys || len(dying) < troubledKeys/2; i++ {
				key := fmt.Sprintf("key-%d", i)
				if cluster.Master(key) == dead {
					dying = append(dying, key)
				} else {
					living = append(living, key)
				}
			}
			living = living[:troubledKeys]
			f.fly(slices.Concat(living, dying), time.Second) // all are connected to all
			c.hit(dead)
			lasting := b.lasting(10 * time.Second)
			var gone rounds
			var flying sync.WaitGroup
			flying.Go(func() { gone = f.fly(dying, lasting) })
			flown := f.fly(living, lasting)
			flying.Wait()
			t.add(flown.row("one of three masters " + c.name + ": keys of the living")...)
			t.add(gone.row("… its own keys")...)
			s.within("executions a round, keys of the living masters, one "+c.name, flown.each(), 1.01, thousandths)
		}()
	}
}
