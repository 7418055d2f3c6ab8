package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
	"github.com/fleetcall/fleetcall/internal/rig/uvicornrig"
)

// app is a FastAPI app of three workers, each behind a fleetcall proxy of its own, all
// behind nginx as deploy/fastapi configures it.
type app struct {
	url      string // nginx' base URL
	postgres *postgresrig.Server
	workers  []*uvicornrig.Server
	sidecars []*sidecar // of the workers, in the same order
}

// sidecar is a fleetcall proxy.
type sidecar struct {
	id    string
	addr  string // where it listens for the app's clients
	admin string // base URL of its own endpoints
	proc  *process.Process
}

// startApp starts the app with more variables for its sidecars. Everything is stopped when
// the test ends.
func startApp(t *testing.T, env ...string) *app {
	t.Helper()
	a := &app{postgres: database(t)}
	redis := redisrig.Start(t)
	for i := range 3 {
		// The table's lock holds queries for as long as a test wants: no delay has to.
		w := uvicornrig.Start(t, "testdata/fastapi", "DATABASE_URL="+a.postgres.URL()+"&application_name="+worker(i), "QUERY_DELAY=0")
		a.workers = append(a.workers, w)
		a.sidecars = append(a.sidecars, startSidecar(t, fmt.Sprintf("sidecar-%d", i+1), w.URL,
			append([]string{"REDIS_URL=" + redis.URL(), "COALESCE_MODE=distributed"}, env...)))
	}
	a.startNginx(t)
	a.postgres.ResetQueries()
	return a
}

func startSidecar(t *testing.T, id, upstream string, env []string) *sidecar {
	t.Helper()
	s, logs := &sidecar{id: id}, &rig.Output{}
	t.Cleanup(func() {
		if s.proc != nil && s.proc.Running() && !s.proc.Stop(syscall.SIGTERM, time.Minute) {
			t.Errorf("%s was killed, because it still ran after SIGTERM", id)
		}
		if strings.Contains(logs.String(), "DATA RACE") {
			t.Errorf("%s reports a data race", id)
		}
		if t.Failed() {
			text := logs.String()
			t.Logf("the log of %s ends with:\n%s", id, text[max(0, len(text)-4000):])
		}
	})
	var err error
	for range 10 { // another process may take a port first
		admin := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
		s.addr, s.admin = fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t)), "http://"+admin
		s.proc, err = process.Start(process.Spec{
			Path: binary, Args: []string{"proxy"}, Stdout: logs, Stderr: logs,
			Env: append(append(os.Environ(), environment("UPSTREAM="+upstream, "LISTEN_ADDR="+s.addr, "ADMIN_ADDR="+admin, "REPLICA_ID="+id)...), env...),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err = rig.Eventually(s.proc.Done(), s.ready); err == nil {
			return s
		}
		s.proc.Kill()
		if !strings.Contains(logs.String(), "address already in use") {
			break
		}
	}
	t.Fatalf("starting %s: %v", id, err)
	return nil
}

func (s *sidecar) ready() error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	resp, err := client.Get(s.admin + "/readyz")
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (a *app) startNginx(t *testing.T) {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	listen, err := fleet.ListenConf(addr)
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		text, err := os.ReadFile("../deploy/fastapi/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	upstream := string(read("upstream.conf"))
	for _, s := range a.sidecars {
		upstream = strings.Replace(upstream, s.id+":8000", s.addr, 1)
	}
	a.url = "http://" + addr
	nginxrig.Start(t, nginxrig.Files{"nginx.conf": read("nginx.conf"), "listen.conf": listen, "upstream.conf": nginxrig.Fixed([]byte(upstream))}, a.url)
}

// worker is the name by which PostgreSQL knows a worker.
func worker(i int) string { return fmt.Sprintf("worker-%d", i+1) }

// leading waits until a worker that is none of those has a query that waits in PostgreSQL, and
// returns which.
func (a *app) leading(t *testing.T, but ...int) (i int) {
	t.Helper()
	eventually(t, "a worker's query", func() bool {
		held := a.postgres.Held()
		for i = range a.workers {
			if slices.Contains(held, worker(i)) && !slices.Contains(but, i) {
				return true
			}
		}
		return false
	})
	return i
}

// Replicas returns the sidecars that are running, as those that tell their statistics.
func (a *app) Replicas() []*fleet.Replica {
	var running []*fleet.Replica
	for _, s := range a.sidecars {
		if s.proc.Running() {
			running = append(running, &fleet.Replica{ID: s.id, URL: s.admin})
		}
	}
	return running
}
