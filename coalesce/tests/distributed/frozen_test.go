package distributed_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAFrozenRedisCostsOneTimeoutAltogether freezes it under callers that come one after
// the other, on clients of every kind, and thaws it when their connections hang.
func TestAFrozenRedisCostsOneTimeoutAltogether(t *testing.T) {
	t.Parallel()
	const redisTimeout = time.Second
	for name, options := range map[string]redis.Options{
		"a client that keeps deadlines":   {ContextTimeoutEnabled: true},
		"one that does not":               {},
		"one with a small pool":           {PoolSize: 2},
		"one that does not read for ever": {ReadTimeout: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			server := redisrig.Start(t)
			options.Addr = server.Addr
			replicas := connected(t, &options, distributed.WithRedisTimeout(redisTimeout))
			server.Freeze()
			var wg sync.WaitGroup
			heldUp := watchTime()
			for i := range 20 {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * redisTimeout / 25) // one comes after the other
					began := time.Now()
					v, role, err := replicas[0].Do(context.Background(), fmt.Sprint("k", i), value)
					if took := time.Since(began) - heldUp.total(); v != "v" || role != coalesce.Fallback || err != nil || took > redisTimeout*5/4 {
						t.Errorf("caller %d: %q, %v, %v after %v, and %v for which this process was held up", i, v, role, err, took, heldUp.total())
					}
				})
			}
			wg.Wait()
			heldUp.stop()
			if st := replicas[0].Stats().Distributed; st.Server != distributed.ServerDown {
				t.Errorf("the server is %s", st.Server)
			}
			for i := range 20 {
				began := time.Now()
				if v, role, err := replicas[0].Do(context.Background(), fmt.Sprint("later", i), value); v != "v" || role != coalesce.Fallback || err != nil {
					t.Errorf("later caller %d: %q, %v, %v", i, v, role, err)
				}
				if took := time.Since(began); took > redisTimeout/2 {
					t.Errorf("later caller %d waited for %v", i, took)
				}
			}
			_, _, _ = replicas[1].Do(context.Background(), "k", value)
			time.Sleep(2 * redisTimeout) // until each connection has a command that hangs
			server.Thaw()
			thawed := time.Now()
			admin := server.Client()
			eventually(t, "a flight is shared", func() bool { return shared(admin, replicas[0], replicas[1]) })
			t.Logf("a flight was shared, and ended, within %v of the thaw", time.Since(thawed))
		})
	}
}

// heldUp adds up for how long this process, or all of the machine, stood still.
type heldUp struct {
	sum  atomic.Int64
	stop func()
}

// watchTime watches until stop is called.
func watchTime() *heldUp {
	const tick = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	h := &heldUp{stop: func() { cancel(); <-ended }}
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			began := time.Now()
			time.Sleep(tick)
			h.sum.Add(int64(max(0, time.Since(began)-2*tick)))
		}
	}()
	return h
}

func (h *heldUp) total() time.Duration { return time.Duration(h.sum.Load()) }

// connected starts two replicas that have used Redis.
func connected(t *testing.T, options *redis.Options, opts ...distributed.Option) (replicas []*replica[string]) {
	t.Helper()
	for range 2 {
		client := redis.NewClient(options)
		g, err := open[string](client, opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = g.Close(context.Background())
			_ = client.Close()
		})
		if _, _, err := g.Do(t.Context(), "connects", value); err != nil {
			t.Fatal(err)
		}
		replicas = append(replicas, g)
	}
	return replicas
}

// shared says whether the follower takes the leader's outcome.
func shared(admin *redis.Client, leader, follower *replica[string]) bool {
	leads, led := make(chan struct{}), make(chan struct{})
	end := make(chan struct{})
	go func() {
		defer close(led)
		_, _, _ = leader.Do(context.Background(), "shared", func(context.Context) (string, error) { close(leads); <-end; return "v", nil })
	}()
	<-leads
	followed := make(chan coalesce.Role, 1)
	go func() {
		_, role, _ := follower.Do(context.Background(), "shared", value)
		followed <- role
	}()
	for len(followed) == 0 && !strings.HasPrefix(leaseOf(admin, "test", "shared"), "1") { // it runs its own, or has joined
		time.Sleep(time.Millisecond)
	}
	time.Sleep(onItsWay)
	close(end)
	role := <-followed
	<-led
	return role == coalesce.RemoteFollower
}

// livingAndLost are the keys of other masters, and those of the dead one.
func livingAndLost(cluster *redisrig.Cluster, keys []string, dead *redisrig.Server) (living, lost []string) {
	for _, key := range keys {
		if cluster.Master("{"+key+"}") == dead {
			lost = append(lost, key)
		} else {
			living = append(living, key)
		}
	}
	return living, lost
}

// leasesOf returns how many of a Group's keys have one in this namespace.
func leasesOf(client redis.Cmdable, namespace string, keys []string) (n int) {
	for _, key := range keys {
		n += int(client.Exists(context.Background(), namespace+":test:{"+key+"}:lease").Val())
	}
	return n
}

// TestADeadMasterHurtsNoOthersKeys freezes one of three.
func TestADeadMasterHurtsNoOthersKeys(t *testing.T) {
	t.Parallel()
	cluster := redisrig.StartCluster(t)
	r := newReplicas(t, onCluster(cluster), distributed.WithRedisTimeout(time.Second), distributed.WithNamespace("dead"))
	keys := manyKeys(60)
	r.hold(keys, func(key string) (string, error) { return key, nil }).end()
	dead := cluster.Master("{" + keys[0] + "}")
	living, lost := livingAndLost(cluster, keys, dead)
	dead.Freeze()
	defer dead.Thaw()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for _, key := range lost { // they go on all the while
		for _, g := range r.groups {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _, _ = g.Do(context.Background(), key, value)
						time.Sleep(10 * time.Millisecond) // a caller of a real service does not spin either
					}
				}
			})
		}
	}
	before := r.fallbacks.Load()
	for _, g := range r.groups {
		eventually(t, "every replica has found the dead one", func() bool { return g.Stats().Distributed.Server == distributed.ServerDown })
	}
	eventually(t, "something was lost", func() bool { return r.fallbacks.Load() > before })
	close(stop)
	wg.Wait()
	client := cluster.Client()
	for range 3 {
		h := r.hold(living, func(key string) (string, error) { return key, nil })
		if n := leasesOf(client, "dead", living); n != len(living) {
			t.Errorf("%d leases of %d keys", n, len(living))
		}
		if err := h.end().shared(); err != nil {
			t.Error(err)
		}
		// Who joined a flight that has ended would join anew, and count twice.
		eventually(t, "all are released", func() bool { return leasesOf(client, "dead", living) == 0 })
	}
	for _, g := range r.groups {
		var down []string
		for _, s := range g.fleet.Stats().Redis.Servers {
			if s.State == distributed.ServerDown {
				down = append(down, s.Address)
			}
		}
		if len(down) != 1 || down[0] != dead.Addr {
			t.Errorf("down are %v, dead is %s", down, dead.Addr)
		}
	}
}

// stoppedServer names the variable by which the next test's own process is told where Redis
// is.
const stoppedServer = "FLEETCALL_TEST_STOPPED_SERVER"

// TestAProcessThatWasStoppedDoesNotBlameRedis stops one that calls all the time, as often as
// it takes to stop it with commands on their way.
func TestAProcessThatWasStoppedDoesNotBlameRedis(t *testing.T) {
	t.Parallel()
	if addr := os.Getenv(stoppedServer); addr != "" {
		callUntilEOF(t, addr)
		return
	}
	server := redisrig.Start(t)
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), stoppedServer+"="+server.Addr)
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill() }()
	lines := bufio.NewReader(out)
	for line := ""; !strings.HasPrefix(line, "ready"); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		_ = child.Process.Signal(syscall.SIGSTOP)
		time.Sleep(time.Second) // four of its timeouts
		_ = child.Process.Signal(syscall.SIGCONT)
		time.Sleep(300 * time.Millisecond) // a wrong verdict takes one timeout
	}
	_ = in.Close()
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	if !strings.Contains(string(rest), "no server went down") {
		t.Errorf("the process says:\n%s", rest)
	}
	t.Logf("%s", rest)
}

func callUntilEOF(t *testing.T, addr string) {
	var told toldLog
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer client.Close()
	client.AddHook(&slowTail{longer: 20 * time.Millisecond}) // there is always one on its way
	g, err := open[string](client, distributed.WithRedisTimeout(250*time.Millisecond), distributed.WithHooks(health{log: &told}))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close(context.Background())
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_, _, _ = g.Do(context.Background(), fmt.Sprint("k", i, "-", n), value)
			}
		})
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	cancel()
	wg.Wait()
	st := g.Stats().Distributed
	if lines := told.all(); len(lines) > 0 {
		fmt.Println("servers went", lines)
	} else {
		fmt.Println("no server went down;", st.Fallbacks, "fallbacks of", st.Requests)
	}
}
