// Package containers runs deploy/docker-compose.yml, unchanged, on a container engine, and
// looks at what it made. make containers starts it.
package containers

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// needEngine skips the test where containers cannot be run, or are not asked for.
func needEngine(t *testing.T) {
	t.Helper()
	if os.Getenv("FLEETCALL_CONTAINERS") == "" {
		t.Skip("left out: the compose file on an engine; make containers runs it")
	}
	if out, err := exec.Command("docker", "compose", "version").CombinedOutput(); err != nil {
		t.Skipf("left out: the compose file on an engine: docker compose: %v %s", err, out)
	}
	if out, err := exec.Command("docker", "info").CombinedOutput(); err != nil {
		t.Skipf("left out: the compose file on an engine: docker info: %v %s", err, out)
	}
}

// password has all that means something in a URL, to a shell, or to compose.
const password = `a@b:c/d?e#f%25g h&i'j"k\l=m`

// atOnce are the requests that come at the same time.
const atOnce = 1000

func TestTheFleetOfCompose(t *testing.T) {
	needEngine(t)
	p := newProject(t, "docker-compose.yml", "limits.yml", "POSTGRES_PASSWORD="+password)
	p.compose(nil, "build")

	for i, mode := range []struct {
		name, delay string
		queries     int
	}{{"off", "50ms", atOnce}, {"local", "5s", 3}, {"distributed", "5s", 1}} {
		// The variables are all that changes from one mode to the next: compose makes the
		// replicas anew.
		p.compose([]string{"COALESCE_MODE=" + mode.name, "QUERY_DELAY=" + mode.delay}, "up", "--detach")
		p.healthy("replica-1", "replica-2", "replica-3", "nginx")
		if i == 0 {
			p.logStatements()
		}
		before := p.queries()
		replicas := p.burst(fmt.Sprintf("/product/coalesced/%d", i+1))
		got := p.queries() - before
		t.Logf("%d requests at once through nginx, mode %s: %d queries; answered by %v", atOnce, mode.name, got, replicas)
		if got != mode.queries {
			t.Errorf("mode %s: %d queries, want %d", mode.name, got, mode.queries)
		}
		if len(replicas) != 3 {
			t.Errorf("mode %s: %d replicas answered, want 3", mode.name, len(replicas))
		}
	}
	p.hardened(map[string]string{
		"replica-1": "10001", "replica-2": "10001", "replica-3": "10001", "nginx": "101", "redis": "999", "postgres": "70",
	})
	p.monitored()
	p.replacedUnderLoad()
}

// healthy waits until the engine finds the services healthy.
func (p *project) healthy(services ...string) {
	p.t.Helper()
	eventually(p.t, "health", func() error {
		for _, s := range services {
			if h := p.container(s).State.Health; h == nil || h.Status != "healthy" {
				return fmt.Errorf("%s is not healthy\n%s", s, p.state())
			}
		}
		return nil
	})
}

// burst sends the requests, and returns how many each replica answered.
func (p *project) burst(path string) map[string]int {
	p.t.Helper()
	target := p.address("nginx", "8000") + path
	c := client(atOnce)
	defer c.CloseIdleConnections()
	replicas := map[string]int{}
	var mu sync.Mutex
	var requests sync.WaitGroup
	for range atOnce {
		requests.Go(func() {
			replica, err := get(c, target)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				p.t.Error(err)
			}
			replicas[replica]++
		})
	}
	requests.Wait()
	return replicas
}

// get sends a request and returns the replica that answered it with 200.
func get(c *http.Client, target string) (replica string, err error) {
	resp, err := c.Get(target) //nolint:noctx // the client has a timeout
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s\n%s", target, resp.Status, body)
	}
	return resp.Header.Get("X-Replica"), err
}

// hardened looks at the processes of services themselves, by the users that they are to have.
func (p *project) hardened(users map[string]string) {
	p.t.Helper()
	for service, user := range users {
		c := p.container(service)
		status := c.status(p.t)
		p.t.Logf("%s: user %s, capabilities %s, no new privileges %s, read-only %v", service, status["Uid"][0], status["CapEff"][0], status["NoNewPrivs"][0], c.HostConfig.ReadonlyRootfs)
		if status["Uid"][0] != user {
			p.t.Errorf("%s runs as %s, want %s", service, status["Uid"][0], user)
		}
		for _, set := range []string{"CapEff", "CapPrm", "CapBnd"} {
			if strings.Trim(status[set][0], "0") != "" {
				p.t.Errorf("%s has the capabilities %s %s", service, set, status[set][0])
			}
		}
		if status["NoNewPrivs"][0] != "1" || !c.HostConfig.ReadonlyRootfs {
			p.t.Errorf("%s: no new privileges %s, read-only %v", service, status["NoNewPrivs"][0], c.HostConfig.ReadonlyRootfs)
		}
	}
	if c := p.container("initdb"); !c.HostConfig.ReadonlyRootfs || !slices.Contains(c.HostConfig.CapDrop, "ALL") {
		p.t.Error("initdb is not hardened")
	}
}

// monitored starts Prometheus and Grafana too, and asks Prometheus for the replicas.
func (p *project) monitored() {
	p.t.Helper()
	p.compose([]string{"QUERY_DELAY=50ms"}, "--profile", "monitoring", "up", "--detach")
	p.healthy("replica-1", "replica-2", "replica-3", "nginx")
	query := p.address("prometheus", "9090") + "/api/v1/query?query=" + url.QueryEscape(`up{job="fleetcall"} and on(instance) fleetcall_build_info`)
	c := client(1)
	defer c.CloseIdleConnections()
	var found []string
	eventually(p.t, "Prometheus", func() error {
		resp, err := c.Get(query) //nolint:noctx // the client has a timeout
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		var answer struct {
			Data struct {
				Result []struct {
					Metric map[string]string
					Value  [2]any
				}
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			return err
		}
		found = nil
		for _, r := range answer.Data.Result {
			if r.Value[1] == "1" {
				found = append(found, r.Metric["instance"])
			}
		}
		slices.Sort(found)
		if want := []string{"replica-1:8000", "replica-2:8000", "replica-3:8000"}; !slices.Equal(found, want) {
			return fmt.Errorf("it has the metrics of %v, want %v", found, want)
		}
		return nil
	})
	p.t.Logf("Prometheus has the metrics of %v", found)
	grafana := p.container("grafana")
	made := docker(p.t, "inspect", "-f", `{{index .Config.Labels "fleetcall.stand-in"}}`, grafana.ID)
	if made != "" {
		p.t.Log("left out: Grafana itself; its files are mounted where it looks for them, and its volume can be written: " +
			strings.Join(strings.Fields(p.compose(nil, "logs", "--no-log-prefix", "grafana")), " "))
	}
	if status := grafana.status(p.t); status["Uid"][0] == "0" || strings.Trim(status["CapEff"][0], "0") != "" {
		p.t.Errorf("grafana runs as %v with the capabilities %v", status["Uid"], status["CapEff"])
	}
}

// stream is requests that come one after the other from several clients.
type stream struct {
	stop    chan struct{}
	clients sync.WaitGroup

	mu      sync.Mutex
	sent    int
	lost    []error
	slowest time.Duration
	last    map[string]time.Time // when each replica has answered
}

func newStream(target string) *stream {
	s := &stream{stop: make(chan struct{}), last: map[string]time.Time{}}
	c := client(20)
	for range 20 {
		s.clients.Go(func() {
			defer c.CloseIdleConnections()
			for {
				select {
				case <-s.stop:
					return
				default:
				}
				began := time.Now()
				replica, err := get(c, target)
				s.mu.Lock()
				s.sent++
				s.slowest = max(s.slowest, time.Since(began))
				if err != nil {
					s.lost = append(s.lost, err)
				}
				s.last[replica] = time.Now()
				s.mu.Unlock()
			}
		})
	}
	return s
}

// end may be called more than once.
func (s *stream) end() {
	s.mu.Lock()
	select {
	case <-s.stop:
	default:
		close(s.stop)
	}
	s.mu.Unlock()
	s.clients.Wait()
}

// replacedUnderLoad gives a replica another address while requests come in.
func (p *project) replacedUnderLoad() {
	p.t.Helper()
	before := p.container("replica-2").address()
	load := newStream(p.address("nginx", "8000") + "/product/coalesced/4")
	defer load.end()

	p.compose(nil, "stop", "replica-2")
	p.compose(nil, "rm", "--force", "replica-2")
	// Something else takes the address, so that the replica needs another one.
	p.compose(nil, "run", "--detach", "--no-deps", "--name", p.name+"-squatter", "redis")
	p.compose([]string{"QUERY_DELAY=50ms"}, "up", "--detach", "--no-deps", "replica-2")
	p.healthy("replica-2")
	after := p.container("replica-2").address()
	began := time.Now()
	eventually(p.t, "the replica's new address", func() error {
		load.mu.Lock()
		defer load.mu.Unlock()
		if load.last["replica-2"].Before(began) {
			return fmt.Errorf("no answer of replica-2 since it was made anew, at %s instead of %s", after, before)
		}
		return nil
	})
	took := time.Since(began)
	load.end()
	docker(p.t, "rm", "--force", "--volumes", p.name+"-squatter")
	p.t.Logf("replica-2 made anew at %s instead of %s: it answers through nginx %v after it was healthy; %d requests meanwhile, %d lost, the slowest took %v",
		after, before, took.Round(time.Millisecond), load.sent, len(load.lost), load.slowest.Round(time.Millisecond))
	if before == after {
		p.t.Errorf("the replica has its address %s again, so that this shows nothing", after)
	}
	if len(load.lost) > 0 {
		p.t.Errorf("%d of %d requests were lost: %v", len(load.lost), load.sent, load.lost[0])
	}
}
