package deploy_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func haproxy(t *testing.T) string {
	t.Helper()
	return rig.Program(t, "haproxy", "haproxy", "/usr/sbin/haproxy", "/usr/local/sbin/haproxy")
}

func TestHAProxyAcceptsItsConfiguration(t *testing.T) {
	// It prints a warning for what is not good style, too.
	out, err := exec.Command(haproxy(t), "-c", "-f", "balancers/haproxy.cfg").CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("[WARNING]")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// replicaProcess is a replica of the program itself.
type replicaProcess struct {
	*testing.T
	binary, redis, name string
	port                int
	process             *process.Process
	output              *rig.Output
}

func (r *replicaProcess) url() string { return fmt.Sprintf("http://127.0.0.1:%d", r.port) }

// start starts the replica, and waits until it is ready.
func (r *replicaProcess) start() {
	r.Helper()
	env := append(os.Environ(), fmt.Sprintf("LISTEN_ADDR=127.0.0.1:%d", r.port), "REPLICA_ID="+r.name, "REDIS_URL="+r.redis,
		"QUERY_DELAY=200ms", "SHUTDOWN_DELAY=5s", "COALESCE_REDIS_TIMEOUT=2s", "DATABASE_URL=", "TMPDIR="+r.TempDir())
	r.output = new(rig.Output)
	p, err := process.Start(process.Spec{Path: r.binary, Args: []string{"serve"}, Env: env, Dir: r.TempDir(), Stdout: r.output, Stderr: r.output})
	if err != nil {
		r.Fatal(err)
	}
	r.process = p
	r.Cleanup(func() { p.Stop(syscall.SIGKILL, time.Minute) })
	if err := rig.Eventually(p.Done(), func() error { return ready(r.url() + "/readyz") }); err != nil {
		r.Fatalf("%s: %v\n%s", r.name, err, r.output.String())
	}
}

func ready(url string) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get(url) //nolint:noctx // it has a timeout
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", resp.Status)
	}
	return nil
}

// startHAProxy starts it before replicas, with the documented configuration but for
// addresses and the number of connections, which takes more file descriptors than a test
// may have. It returns its URL.
func startHAProxy(t *testing.T, replicas ...*replicaProcess) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	changes := []string{"bind :8000", "bind " + addr, "maxconn 20000", "maxconn 500"}
	for i, r := range replicas {
		changes = append(changes, fmt.Sprintf("10.0.0.1%d:8000", i+1), strings.TrimPrefix(r.url(), "http://"))
	}
	config := string(read(t, "balancers/haproxy.cfg"))
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(config, changes[i]) {
			t.Fatalf("haproxy.cfg has no %q", changes[i])
		}
		config = strings.ReplaceAll(config, changes[i], changes[i+1])
	}
	file := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var output rig.Output
	p, err := process.Start(process.Spec{Path: haproxy(t), Args: []string{"-db", "-f", file}, Stdout: &output, Stderr: &output})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM, time.Minute) })
	if err := rig.Eventually(p.Done(), func() error { return ready("http://" + addr + "/readyz") }); err != nil {
		t.Fatalf("haproxy: %v\n%s", err, output.String())
	}
	return "http://" + addr
}

// seen counts answers by what they say.
type seen struct {
	mu                      sync.Mutex
	replicas, roles, others map[string]int
}

func newSeen() *seen {
	return &seen{replicas: map[string]int{}, roles: map[string]int{}, others: map[string]int{}}
}

// ask asks for a product, and notes who answered how.
func (s *seen) ask(client *http.Client, url string) {
	resp, err := client.Get(url) //nolint:noctx // it has a timeout
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.others[err.Error()]++
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		s.others[resp.Status]++
		return
	}
	s.replicas[resp.Header.Get("X-Replica")]++
	s.roles[resp.Header.Get("X-Coalesce-Role")]++
}

// load asks by some clients until stop is closed, and returns what they saw.
func load(t *testing.T, balancer string, stop <-chan struct{}) *seen {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: time.Minute}
	t.Cleanup(client.CloseIdleConnections)
	s := newSeen()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					s.ask(client, balancer+"/product/coalesced/1")
				}
			}
		})
	}
	clients.Wait()
	return s
}

func TestHAProxyLosesNoRequestWhenAReplicaStopsOrDies(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "fleetcall")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/fleetcall").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	redis := redisrig.Start(t)
	var replicas []*replicaProcess
	for _, name := range []string{"replica-1", "replica-2"} {
		r := &replicaProcess{T: t, binary: binary, redis: redis.URL(), name: name, port: rig.FreePort(t)}
		r.start()
		replicas = append(replicas, r)
	}
	balancer := startHAProxy(t, replicas...)

	// bothAnswer waits until HAProxy has noticed that both are there.
	bothAnswer := func() {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		rig.Wait(t, "both replicas behind HAProxy", func() error {
			s := newSeen()
			for range 4 {
				s.ask(client, balancer+"/product/normal/1")
			}
			if len(s.replicas) != 2 {
				return fmt.Errorf("%v answered", s.replicas)
			}
			return nil
		})
	}
	// during loads the fleet while something happens to it, and for a second more.
	during := func(what string, happens func()) {
		t.Helper()
		bothAnswer()
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			time.Sleep(time.Second)
			happens()
			time.Sleep(time.Second)
		}()
		s := load(t, balancer, stop)
		t.Logf("%s: replicas %v, roles %v, others %v", what, s.replicas, s.roles, s.others)
		if len(s.others) != 0 || len(s.replicas) != 2 || s.roles["remote-follower"] == 0 {
			t.Errorf("%s: replicas %v, roles %v, others %v", what, s.replicas, s.roles, s.others)
		}
	}
	during("a replica is killed", func() { replicas[0].process.Stop(syscall.SIGKILL, time.Minute) })
	replicas[0].start()
	during("a replica is stopped", func() { replicas[1].process.Stop(syscall.SIGTERM, time.Minute) })

	for _, path := range []string{"/metrics", "//metrics", "/./metrics", "/%6detrics"} {
		if err := ready(balancer + path); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
