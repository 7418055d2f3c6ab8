// Package sidecar has the tests of the example: two workers of its app, each behind a
// fleetcall proxy of its own.
package sidecar

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
	"github.com/fleetcall/fleetcall/internal/rig/uvicornrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// worker is one of the app's, and its sidecar.
type worker struct {
	app string // base URL of the app itself
	url string // of its sidecar
}

// startWorkers starts two workers as the README says.
func startWorkers(t *testing.T) []worker {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "fleetcall")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/fleetcall/fleetcall/cmd/fleetcall").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	redis := redisrig.Start(t)
	var workers []worker
	for i := range 2 {
		app := uvicornrig.Start(t, ".", "QUERY_DELAY=0.5")
		workers = append(workers, worker{app.URL, startSidecar(t, binary,
			"--upstream", app.URL, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", "rules.yaml",
			"--redis-url", redis.URL(), "--replica-id", fmt.Sprintf("worker-%d", i+1), "--redis-timeout", "20s", "--lease-ttl", "20s")})
	}
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return workers
}

// listening is what a sidecar logs when it listens for clients.
var listening = regexp.MustCompile(`msg="?(?:ready|listening).* address=(\S+)`)

func startSidecar(t *testing.T, binary string, flags ...string) (url string) {
	t.Helper()
	log := &rig.Output{}
	p, err := process.Start(process.Spec{Path: binary, Args: append([]string{"proxy"}, flags...), Env: os.Environ(), Stdout: log, Stderr: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM, time.Minute) })
	err = rig.Eventually(p.Done(), func() error {
		found := listening.FindStringSubmatch(log.String())
		if found == nil {
			return fmt.Errorf("it does not listen:\n%s", log)
		}
		url = "http://" + found[1]
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// queries returns how many queries all workers have made.
func queries(t *testing.T, workers []worker) (sum int) {
	t.Helper()
	for _, w := range workers {
		response, err := http.Get(w.app + "/queries")
		if err != nil {
			t.Fatal(err)
		}
		var count struct{ Queries int }
		err = json.NewDecoder(response.Body).Decode(&count)
		_ = response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		sum += count.Queries
	}
	return sum
}

// get returns an answer in a line: status, role, body.
func (w worker) get(path, token string) string {
	request, err := http.NewRequest("GET", w.url+path, nil)
	if err != nil {
		return err.Error()
	}
	request.Host = "shop.example" // as behind a balancer
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s %s", response.StatusCode, response.Header.Get("X-Coalesce-Role"), text)
}

// together sends 20 requests to the workers at once, until they are so much at once that
// they share one query. However they come, there are as many queries as leaders.
func together(t *testing.T, workers []worker, path, token, status, body string) {
	t.Helper()
	rig.Wait(t, "requests that come together", func() error {
		before := queries(t, workers)
		answers := make(chan string, 20)
		for i := range cap(answers) {
			go func() { answers <- workers[i%2].get(strings.ReplaceAll(path, "{i}", fmt.Sprint(i)), token) }()
		}
		leaders := 0
		for range cap(answers) {
			answer := <-answers
			got, rest, _ := strings.Cut(answer, " ")
			role, text, _ := strings.Cut(rest, " ")
			if got != status || text != body {
				t.Errorf("got %s", answer)
			}
			if role == "leader" {
				leaders++
			}
		}
		made := queries(t, workers) - before
		if made != leaders {
			t.Errorf("%d queries, and %d leaders", made, leaders)
		}
		if made != 1 {
			return fmt.Errorf("%d queries", made)
		}
		return nil
	})
}

func TestRequestsToAllWorkersAreOneQuery(t *testing.T) {
	workers := startWorkers(t)
	together(t, workers, "/product/1?visit={i}", "", "200", `{"id":1,"name":"Keyboard","price":49.0}`)
	together(t, workers, "/product/3", "", "404", `{"detail":"there is no such product"}`)
	together(t, workers, "/cart", "a-token", "200", `{"user":"alice","products":[{"id":1,"name":"Keyboard","price":49.0}]}`)
	if answer := workers[1].get("/cart", "b-token"); !strings.HasPrefix(answer, `200 leader {"user":"bob"`) {
		t.Errorf("bob got %s", answer)
	}
	if answer := workers[0].get("/queries", ""); !strings.HasPrefix(answer, "200 alone ") {
		t.Errorf("what no rule merges: %s", answer)
	}
}
