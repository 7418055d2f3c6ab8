package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/httpheader"
	"github.com/fleetcall/fleetcall/internal/rig"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

// When a fleet starts the test's binary as a replica, TestMain serves instead of
// running the tests.
func TestMain(m *testing.M) {
	if os.Getenv("FLEET_TEST_REPLICA") != "" {
		if err := serveAsReplica(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// serveAsReplica is a replica that reports its environment and the headers it receives.
func serveAsReplica() error {
	if os.Args[1] != "serve" {
		return fmt.Errorf("unexpected arguments %q", os.Args)
	}
	if os.Getenv("FLEET_TEST_REPLICA") == "broken" {
		return fmt.Errorf("broken on purpose")
	}
	id := os.Getenv("REPLICA_ID")
	mux := http.NewServeMux()
	mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"replica": id})
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Replica", id)
		_ = json.NewEncoder(w).Encode(os.Environ())
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(r.Header)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(300 * time.Millisecond) // a request that is under way when its replica is stopped
		_, _ = io.WriteString(w, id)
	})
	server := &http.Server{Addr: os.Getenv("LISTEN_ADDR"), Handler: mux}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	fmt.Println("serving")
	select {
	case err := <-done:
		return err
	case <-stop:
		return server.Shutdown(context.Background())
	}
}

type reports struct {
	mu  sync.Mutex
	all []string
}

func (r *reports) add(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, s)
}

func (r *reports) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.all, "\n")
}

func start(t *testing.T, balancer string, config fleet.Config) *fleet.Fleet {
	t.Helper()
	config.Balancer = balancer
	config.Env = append([]string{"FLEET_TEST_REPLICA=1"}, config.Env...)
	f, err := fleet.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func eachBalancer(t *testing.T, test func(t *testing.T, balancer string)) {
	for _, balancer := range []string{fleet.BalancerNginx, fleet.BalancerBuiltin} {
		t.Run(balancer, func(t *testing.T) { test(t, balancer) })
	}
}

func get(t *testing.T, url string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "mine")
	return do(t, req)
}

func do(t *testing.T, req *http.Request) (*http.Response, []byte) {
	t.Helper()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

func TestRequestsAreSpreadOverTheReplicas(t *testing.T) {
	eachBalancer(t, func(t *testing.T, balancer string) {
		var out rig.Output
		f := start(t, balancer, fleet.Config{Logs: &out})
		answers := map[string]int{}
		spread := func(n int) {
			clear(answers)
			for range n {
				resp, _ := get(t, f.URL()+"/env")
				answers[resp.Header.Get("X-Replica")]++
			}
		}
		spread(30)
		for _, r := range f.Replicas() {
			if answers[r.ID] < 8 || answers[r.ID] > 12 {
				t.Errorf("answers %v, want 10 each", answers)
			}
			if !strings.Contains(out.String(), "["+r.ID+"] serving\n") {
				t.Errorf("no log of %s in %q", r.ID, out.String())
			}
		}
		added, err := f.AddReplica(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		spread(40)
		if answers[added.ID] < 8 {
			t.Errorf("answers %v, want 10 each", answers)
		}
		_, body := get(t, f.URL()+"/headers")
		if !strings.Contains(string(body), `"X-Request-Id":["mine"]`) || !strings.Contains(string(body), "X-Forwarded-For") {
			t.Errorf("a replica got the headers %s", body)
		}
	})
}

// expectOwnProblem fails the test unless the response is the balancer's own and has the
// form of a replica's.
func expectOwnProblem(t *testing.T, resp *http.Response, body []byte, status int, detail string) {
	t.Helper()
	want := httpheader.Common()
	want.Set("Content-Type", "application/problem+json")
	want.Set("X-Request-Id", "mine")
	for name := range want {
		if got := resp.Header.Values(name); !slices.Equal(got, want.Values(name)) {
			t.Errorf("status %d: %s is %q, want %q", resp.StatusCode, name, got, want.Values(name))
		}
	}
	type problem struct {
		Type, Title, Detail string
		Status              int
	}
	var p problem
	if err := json.Unmarshal(body, &p); err != nil || resp.StatusCode != status ||
		p != (problem{"about:blank", http.StatusText(status), detail, status}) {
		t.Errorf("%d: %s", resp.StatusCode, body)
	}
}

func TestTheBalancerHasNoMetrics(t *testing.T) {
	eachBalancer(t, func(t *testing.T, balancer string) {
		f := start(t, balancer, fleet.Config{Replicas: 1})
		for _, path := range []string{"/metrics", "//metrics", "/metrics?name[]=up"} {
			resp, body := get(t, f.URL()+path)
			expectOwnProblem(t, resp, body, http.StatusNotFound, "Each replica has metrics of its own; the balancer has none.")
		}
	})
}

func TestWithoutAReplicaTheBalancerAnswersAsOneWould(t *testing.T) {
	eachBalancer(t, func(t *testing.T, balancer string) {
		f := start(t, balancer, fleet.Config{Replicas: 2})
		for _, r := range f.Replicas() {
			r.Kill()
		}
		for _, path := range []string{"/env", "/health"} {
			resp, body := get(t, f.URL()+path)
			expectOwnProblem(t, resp, body, http.StatusBadGateway, "No replica answered.")
		}
	})
}

func TestAnIDThatABalancerGivesIsTheReplicas(t *testing.T) {
	eachBalancer(t, func(t *testing.T, balancer string) {
		f := start(t, balancer, fleet.Config{Replicas: 1})
		ask := func(path, id string) (*http.Response, []byte) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Request-Id", id)
			return do(t, req)
		}
		for _, id := range []string{"", "a b", strings.Repeat("x", 129)} {
			_, body := ask("/headers", id)
			var at http.Header
			if err := json.Unmarshal(body, &at); err != nil || !newID.MatchString(at.Get("X-Request-Id")) {
				t.Errorf("%q reaches the replica as %s", id, body)
			}
			if resp, _ := ask("/metrics", id); !newID.MatchString(resp.Header.Get("X-Request-Id")) {
				t.Errorf("%q reaches the client as %q", id, resp.Header.Get("X-Request-Id"))
			}
		}
	})
}

var newID = regexp.MustCompile(`^[0-9a-f]{32}$`)

func TestReplicasGetTheirEnvironment(t *testing.T) {
	f := start(t, fleet.BalancerBuiltin, fleet.Config{Replicas: 1, Mode: "local", Env: []string{"QUERY_DELAY=7ms"}})
	_, body := get(t, f.URL()+"/env")
	var env []string
	if err := json.Unmarshal(body, &env); err != nil {
		t.Fatal(err)
	}
	all := "\n" + strings.Join(env, "\n") + "\n"
	for _, want := range []string{"\nCOALESCE_MODE=local\n", "\nQUERY_DELAY=7ms\n", "\nREPLICA_ID=replica-1\n", "\nDATABASE_URL=sqlite:///", "\nREDIS_URL=redis://127.0.0.1:", "\nLISTEN_ADDR=127.0.0.1:"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %s", want, all)
		}
	}
}

func TestAReplicaThatEndsFailsNoRequest(t *testing.T) {
	eachBalancer(t, func(t *testing.T, balancer string) {
		var reported reports
		f := start(t, balancer, fleet.Config{Report: reported.add})
		var wg sync.WaitGroup
		var mu sync.Mutex
		statuses := map[int]int{}
		for range 60 {
			wg.Go(func() {
				resp, _ := get(t, f.URL()+"/slow")
				mu.Lock()
				defer mu.Unlock()
				statuses[resp.StatusCode]++
			})
			time.Sleep(5 * time.Millisecond) // a steady load, not a burst
		}
		running := f.Replicas()
		wg.Go(func() {
			if err := running[0].Stop(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(running[1].Kill)
		for range 60 {
			wg.Go(func() {
				resp, _ := get(t, f.URL()+"/slow")
				mu.Lock()
				defer mu.Unlock()
				statuses[resp.StatusCode]++
			})
			time.Sleep(5 * time.Millisecond) // a steady load, not a burst
		}
		wg.Wait()
		if statuses[http.StatusOK] != 120 {
			t.Errorf("statuses %v", statuses)
		}
		if n := len(f.Replicas()); n != 1 {
			t.Errorf("%d replicas left, want 1", n)
		}
		if reported.String() != "" {
			t.Errorf("ends that were asked for are reported: %s", reported.String())
		}
	})
}

func TestAReplicaThatDiesIsReported(t *testing.T) {
	var reported reports
	f := start(t, fleet.BalancerBuiltin, fleet.Config{Report: reported.add})
	if err := syscall.Kill(f.Replicas()[1].Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	rig.Wait(t, "its end to be reported", func() error {
		if !strings.Contains(reported.String(), "ended by itself: signal: killed") {
			return fmt.Errorf("reported: %q", reported.String())
		}
		return nil
	})
}

func TestAFleetThatCannotStartSaysWhyAndLeavesNothing(t *testing.T) {
	_, err := fleet.Start(t.Context(), fleet.Config{Env: []string{"FLEET_TEST_REPLICA=broken"}})
	if err == nil || !strings.Contains(err.Error(), "broken on purpose") {
		t.Errorf("error %v", err)
	}
	l, listenErr := net.Listen("tcp", "127.0.0.1:0")
	if listenErr != nil {
		t.Fatal(listenErr)
	}
	defer func() { _ = l.Close() }()
	for _, balancer := range []string{fleet.BalancerNginx, fleet.BalancerBuiltin} {
		_, err := fleet.Start(t.Context(), fleet.Config{Listen: l.Addr().String(), Balancer: balancer, Env: []string{"FLEET_TEST_REPLICA=1"}})
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: error %v", balancer, err)
		}
	}
	for _, config := range []fleet.Config{{Mode: "sometimes"}, {Balancer: "luck"}, {Replicas: -1}, {Listen: "nowhere"}} {
		if _, err := fleet.Start(t.Context(), config); err == nil {
			t.Errorf("%+v is accepted", config)
		}
	}
}

func TestKeysOfTheEmbeddedRedisExpire(t *testing.T) {
	f := start(t, fleet.BalancerBuiltin, fleet.Config{Replicas: 1})
	_, address, _ := strings.Cut(f.Redis(), ", ")
	options, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(options)
	defer func() { _ = client.Close() }()
	if err := client.Set(t.Context(), "k", "v", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if n := client.Exists(t.Context(), "k").Val(); n != 1 {
		t.Error("the key is gone at once")
	}
	if err := client.PExpire(t.Context(), "k", 200*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	rig.Wait(t, "the key to expire", func() error {
		if client.Exists(t.Context(), "k").Val() != 0 {
			return errors.New("it is still there")
		}
		return nil
	})
}

func TestPasswordsAreNotShown(t *testing.T) {
	for _, url := range []string{"postgres://user:secret@db:5432/shop?password=secret", "host=db password=secret"} {
		f := start(t, fleet.BalancerBuiltin, fleet.Config{Replicas: 1, DatabaseURL: url, RedisURL: "redis://:secret@one:1,redis://:secret@two:2"})
		for _, shown := range []string{f.Database(), f.Redis()} {
			if strings.Contains(shown, "secret") || !strings.HasPrefix(shown, "given") {
				t.Errorf("%q", shown)
			}
		}
	}
}
