package containers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
)

// soak runs a fleet for a long time.
type soak struct {
	*project
	target   string
	replicas []string
}

// TestSoak has three replicas of the compose file answer mixed requests for as long as
// FLEETCALL_SOAK says, with one fault a minute, and wants what they and their servers hold at
// the end to be what they held at the start. make soak runs it.
func TestSoak(t *testing.T) {
	lasts, err := time.ParseDuration(os.Getenv("FLEETCALL_SOAK"))
	if err != nil {
		t.Skip("left out: a fleet that runs for a long time; make soak TIME=30m runs it")
	}
	needEngine(t)
	// The engine would choose another port each time that nginx starts.
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	s := &soak{project: newProject(t, "docker-compose.yml", "limits.yml", "COALESCE_MODE=distributed", "QUERY_DELAY=50ms", fmt.Sprintf("FLEETCALL_PORT=%d", port)),
		replicas: []string{"replica-1", "replica-2", "replica-3"}}
	s.compose(nil, "build")
	s.compose(nil, "up", "--detach")
	s.healthy(append(s.replicas, "nginx")...)
	s.target = s.address("nginx", "8000")

	end := time.Now().Add(lasts)
	warm := newMixed(s.target)
	time.Sleep(min(time.Minute, lasts/4)) // pools, caches and heaps have their size then
	warm.end()
	before := s.settled(nil)
	fmt.Printf("%-34s %s\n", "at the start", before)

	load := newMixed(s.target)
	defer load.end()
	faults := s.faults()
	for i := 0; time.Now().Before(end); i++ {
		fault := faults[i%len(faults)]
		began := time.Now()
		load.take()
		fault.inject()
		time.Sleep(time.Until(began.Add(40 * time.Second))) // the fault, and what comes back after it
		s.healthy(append(s.replicas, "nginx")...)
		during := load.take()
		time.Sleep(time.Until(began.Add(min(time.Minute, lasts)))) // the rest of its minute is calm
		calm := load.take()
		fmt.Printf("%-34s %s; %s, then %s\n", fault.name, s.holds(), during, calm)
		if calm.answered == 0 || calm.failed > 0 {
			t.Errorf("%s: the fleet does not answer as before: %s %s", fault.name, calm, calm.why)
		}
	}
	load.end()
	after := s.settled(&before)
	fmt.Printf("%-34s %s\n", "at the end", after)
	for _, leak := range after.beyond(before) {
		t.Error(leak)
	}
}

// fault is what happens to one part of the fleet.
type fault struct {
	name   string
	inject func()
}

// faults are those that one after the other happen. Nothing kills replica-3: it is as old as
// the fleet at the end.
func (s *soak) faults() []fault {
	engine := func(args ...string) func(service string) func() {
		return func(service string) func() {
			return func() { docker(s.t, append(slices.Clone(args), s.container(service).ID)...) }
		}
	}
	paused := func(service string, lasts time.Duration) func() {
		return func() {
			engine("pause")(service)()
			time.Sleep(lasts) // the fault itself
			engine("unpause")(service)()
		}
	}
	restart, kill := engine("restart"), engine("kill")
	return []fault{
		{"replica-1 restarts", restart("replica-1")},
		{"Redis stands still for 5 s", paused("redis", 5*time.Second)},
		{"replica-2 is killed", func() {
			kill("replica-2")()
			s.compose(nil, "up", "--detach", "--no-deps", "replica-2")
		}},
		{"replica-3 stands still for 5 s", paused("replica-3", 5*time.Second)}, // more than a lease
		{"Redis restarts", restart("redis")},
		{"PostgreSQL stands still for 5 s", paused("postgres", 5*time.Second)},
		{"replica-3 loses its network for 5 s", func() {
			c := s.container("replica-3")
			for network := range c.NetworkSettings.Networks {
				docker(s.t, "network", "disconnect", "--force", network, c.ID)
				time.Sleep(5 * time.Second)
				docker(s.t, "network", "connect", "--alias", "replica-3", network, c.ID)
			}
		}},
		{"nginx restarts", restart("nginx")},
		{"PostgreSQL restarts", restart("postgres")},
		{"Redis is killed", func() {
			kill("redis")()
			s.compose(nil, "up", "--detach", "--no-deps", "redis")
		}},
	}
}

// holdings are what the fleet and its servers hold at one time.
type holdings struct {
	memory, goroutines, files         map[string]float64 // of each replica; bytes
	redisKeys, redisClients, sessions int                // keys, connections to Redis, and to PostgreSQL
}

func (h holdings) String() string {
	var of []string
	for _, replica := range slices.Sorted(maps.Keys(h.memory)) {
		of = append(of, fmt.Sprintf("%s %.1f MiB, %.0f goroutines, %.0f files", replica, h.memory[replica]/(1<<20), h.goroutines[replica], h.files[replica]))
	}
	return fmt.Sprintf("%s; Redis %d keys, %d connections; PostgreSQL %d connections", strings.Join(of, "; "), h.redisKeys, h.redisClients, h.sessions)
}

// beyond says what is more than it was, by more than what the replicas' pools may differ: an
// outage fills them, and connections stay in them for minutes.
func (h holdings) beyond(was holdings) (leaks []string) {
	more := func(what string, now, before, slack float64) {
		if now > before+slack {
			leaks = append(leaks, fmt.Sprintf("%s: %.0f at the end, %.0f at the start, and no more than %.0f beyond that are no leak", what, now, before, slack))
		}
	}
	const databasePool = 10 // DB_POOL_MAX
	redisPool := 10 * float64(runtime.NumCPU())
	for replica := range was.memory {
		more(replica+", bytes of resident memory", h.memory[replica], was.memory[replica], was.memory[replica]/4+8<<20)
		more(replica+", goroutines", h.goroutines[replica], was.goroutines[replica], 12)
		more(replica+", open files", h.files[replica], was.files[replica], databasePool+redisPool)
	}
	more("keys in Redis", float64(h.redisKeys), float64(was.redisKeys), 3)
	more("connections to Redis", float64(h.redisClients), float64(was.redisClients), redisPool*float64(len(was.memory)))
	more("connections to PostgreSQL", float64(h.sessions), float64(was.sessions), databasePool*float64(len(was.memory)))
	return leaks
}

// settled is what is held when no request is under way, and what was kept for a while is gone:
// idle connections, memory that the collector has found unused, what Redis keeps for seconds.
func (s *soak) settled(was *holdings) holdings {
	s.t.Helper()
	time.Sleep(30 * time.Second) // Redis keeps marks, and clients idle connections, for seconds
	h := s.holds()
	for end := time.Now().Add(2 * time.Minute); was != nil && len(h.beyond(*was)) > 0 && time.Now().Before(end); h = s.holds() {
		time.Sleep(5 * time.Second)
	}
	return h
}

// holds asks the replicas and the servers.
func (s *soak) holds() holdings {
	s.t.Helper()
	h := holdings{memory: map[string]float64{}, goroutines: map[string]float64{}, files: map[string]float64{}}
	for _, replica := range s.replicas {
		m := s.metrics(replica)
		h.memory[replica], h.goroutines[replica], h.files[replica] = m["process_resident_memory_bytes"], m["go_goroutines"], m["process_open_fds"]
	}
	redis := func(args ...string) string {
		return strings.TrimSpace(s.compose(nil, append([]string{"exec", "-T", "redis", "redis-cli"}, args...)...))
	}
	h.redisKeys = number(s.t, strings.TrimPrefix(redis("DBSIZE"), "(integer) "))
	h.redisClients = strings.Count(redis("CLIENT", "LIST"), "addr=") / 2 // and its laddr=
	h.sessions = number(s.t, s.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
	return h
}

func number(t testing.TB, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Error(err)
	}
	return n
}

// metrics are a replica's own, which nginx hides.
func (s *soak) metrics(replica string) map[string]float64 {
	s.t.Helper()
	found := map[string]float64{}
	c := client(1)
	defer c.CloseIdleConnections()
	eventually(s.t, "the metrics of "+replica, func() error {
		resp, err := c.Get("http://" + s.container(replica).address() + ":8000/metrics") //nolint:noctx // the client has a timeout
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			if name, value, ok := strings.Cut(lines.Text(), " "); ok {
				found[name], _ = strconv.ParseFloat(value, 64)
			}
		}
		if found["process_resident_memory_bytes"] == 0 {
			return fmt.Errorf("there are none: %s", resp.Status)
		}
		return nil
	})
	return found
}

// tally is what became of requests.
type tally struct {
	answered, failed, left int
	why                    string // the last failure
}

func (t tally) String() string {
	return fmt.Sprintf("%d answered, %d failed, %d left", t.answered, t.failed, t.left)
}

// mixed is requests of all kinds, that come all the time.
type mixed struct {
	stop    context.CancelFunc
	clients sync.WaitGroup

	mu sync.Mutex
	n  tally
}

func newMixed(target string) *mixed {
	ctx, stop := context.WithCancel(context.Background())
	m := &mixed{stop: stop}
	c := client(32)
	for range 32 {
		m.clients.Go(func() {
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				m.request(ctx, c, target)
				time.Sleep(rand.N(100 * time.Millisecond))
			}
		})
	}
	return m
}

// request sends one: for hot products, for any product, for one that is not there, for many,
// for what the fleet tells of itself; and some clients leave before the answer comes.
func (m *mixed) request(ctx context.Context, c *http.Client, target string) {
	path, leaves, patience := "", false, time.Minute
	switch n := rand.IntN(100); {
	case n < 50:
		path = fmt.Sprint("/product/coalesced/", 1+rand.IntN(3))
	case n < 70:
		path = fmt.Sprint("/product/coalesced/", 1+rand.IntN(1000))
	case n < 75:
		path = "/product/coalesced/999999999"
	case n < 90:
		first := 1 + rand.IntN(900)
		path = fmt.Sprintf("/products?ids=%d,%d,%d,%d", first, first+1, first+7, first+20)
	case n < 95:
		path, leaves, patience = fmt.Sprint("/product/coalesced/", 1+rand.IntN(3)), true, rand.N(40*time.Millisecond)
	default:
		path = "/stats?scope=fleet"
	}
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, body, err := fetch(within, c, target+path)
	if ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case leaves:
		m.n.left++
	case err != nil || status != http.StatusOK && status != http.StatusNotFound:
		m.n.failed++
		m.n.why = fmt.Sprint(path, ": ", status, " ", err, " ", body)
	default:
		m.n.answered++
	}
}

func fetch(ctx context.Context, c *http.Client, target string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b[:min(len(b), 500)]), err
}

// take returns what became of the requests since it was called last.
func (m *mixed) take() tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.n
	m.n = tally{}
	return n
}

// end may be called more than once.
func (m *mixed) end() {
	m.stop()
	m.clients.Wait()
}
