package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// startShadows starts three replicas in mode shadow that hear each other.
func startShadows(t *testing.T, redisURL string) (replicas []*running) {
	t.Helper()
	for _, id := range []string{"r1", "r2", "r3"} {
		replicas = append(replicas, start(t, "--replica-id="+id, "--mode=shadow", "--redis-url="+redisURL, "--query-delay=200ms", "--db-pool-max=50"))
	}
	for _, r := range replicas {
		eventually(t, "hearing the others", func() bool {
			_, _, body := r.send(t, "GET", "/metrics")
			return strings.Contains(string(body), "\nfleetcall_shadow_replicas 3\n")
		})
	}
	return replicas
}

func TestThreeReplicasInModeShadowTellWhatALoadWouldHaveSaved(t *testing.T) {
	server := redisrig.Start(t)
	replicas := startShadows(t, server.URL())
	var passed atomic.Int64
	balancer := roundRobin(t, &passed, replicas...)
	path := filepath.Join(t.TempDir(), "out.html")
	out, stderr, err := runLoad(t, "-n 300 -c 60 --ids 1-2 --format json --url "+balancer.URL+" --report "+path)
	var printed struct {
		Impact *impact
		Shadow *wouldSave `json:"would_have_saved"`
	}
	if jsonErr := json.Unmarshal([]byte(out), &printed); err != nil || jsonErr != nil || printed.Shadow == nil || printed.Shadow.Distributed == nil {
		t.Fatalf("%v, %v\n%s%s", err, jsonErr, out, stderr)
	}
	// Sixty at a time, for two products, on three replicas, are some five rounds of six
	// flights, or of two in the fleet.
	w := printed.Shadow
	if w.Requests != 300 || w.Local.Prevented < 150 || w.Distributed.Prevented <= w.Local.Prevented || w.Distributed.Queries < 1 || w.Distributed.PreventedError != 0 {
		t.Errorf("%+v, distributed %+v", w, w.Distributed)
	}
	if printed.Impact.Prevented != 0 {
		t.Errorf("in mode shadow, %d queries were prevented", printed.Impact.Prevented)
	}
	page, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(page), "<caption>Would have saved</caption>") {
		t.Errorf("%v: the report does not say what would have been saved", err)
	}
	text, _, err := runLoad(t, "-n 20 -c 20 --reset --url "+balancer.URL)
	if err != nil || !strings.Contains(text, "local would have saved") || !strings.Contains(text, "distributed would have saved") || !strings.Contains(words(text), "The mode is shadow") {
		t.Errorf("%v\n%s", err, text)
	}
	st := get[api.Stats](t, replicas[0], "/stats?scope=fleet")
	if st.Shadow == nil || st.Shadow.Requests != 20 || st.Database.Queries != 20 || st.Shadow.Sample != 1 {
		t.Errorf("%+v, %+v", st, st.Shadow)
	}
	_, _, metrics := replicas[0].send(t, "GET", "/metrics")
	for _, name := range []string{`fleetcall_shadow_executions{group="product",tier="distributed"}`, `fleetcall_shadow_executions_error{group="product",tier="local"} 0`, `fleetcall_shadow_calls_total{group="product"}`, `fleetcall_shadow_seconds_total{verdict="counted"}`, `fleetcall_replica_info{mode="shadow",replica="r1"} 1`} {
		if !strings.Contains(string(metrics), name) {
			t.Errorf("no metric %s in\n%s", name, metrics)
		}
	}
}

func TestAReplicaInModeShadowWithoutRedisKnowsLocalAlone(t *testing.T) {
	r := start(t, "--replica-id=r1", "--mode=shadow")
	out, stderr, err := runLoad(t, "-n 40 -c 10 --url "+r.url)
	if err != nil || !strings.Contains(out, "local would have saved") || strings.Contains(out, "distributed would have saved") || !strings.Contains(words(out), "Without Redis, nothing is known") {
		t.Errorf("%v\n%s%s", err, out, stderr)
	}
	if st := get[api.Stats](t, r, "/stats"); st.Mode != "shadow" || st.Shadow == nil || st.Shadow.Distributed != nil || st.Shadow.Requests != 40 {
		t.Errorf("%+v, %+v", st, st.Shadow)
	}
}

// No request waits for a Redis that does not answer, or fails because of it.
func TestRequestsInModeShadowAreAnsweredWhileRedisIsFrozen(t *testing.T) {
	server := redisrig.Start(t)
	replicas := startShadows(t, server.URL())
	server.Freeze()
	defer server.Thaw()
	var passed atomic.Int64
	balancer := roundRobin(t, &passed, replicas...)
	// The load itself asks the fleet for statistics, through Redis, and says so.
	out, stderr, err := runLoad(t, "-n 300 -c 60 --ids 1-2 --format json --url "+balancer.URL)
	var printed struct{ Result struct{ OK, Failed int } }
	if jsonErr := json.Unmarshal([]byte(out), &printed); jsonErr != nil || printed.Result.OK != 300 || printed.Result.Failed != 0 {
		t.Errorf("%v, %v\n%s%s", err, jsonErr, out, stderr)
	}
}

func TestAProxyInModeShadowSendsEveryRequestAndTellsWhatWouldHaveBeenSaved(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	upstream := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		inside <- struct{}{}
		<-release
		_, _ = io.WriteString(w, "right")
	})
	p := startProxy(t, upstream, "--mode=shadow", "--replica-id=p1")
	answers := make(chan string, 2)
	for range 2 {
		go func() {
			status, header, body := p.send(t, "GET", "/product/1")
			answers <- fmt.Sprint(status, " ", header.Get("X-Coalesce-Role"), " ", string(body))
		}()
	}
	<-inside
	<-inside // both requests reach the upstream
	close(release)
	for range 2 {
		if got := <-answers; got != "200 leader right" {
			t.Errorf("the answer is %q", got)
		}
	}
	if st := get[api.Stats](t, p.admin, "/stats"); st.Shadow == nil || st.Shadow.Requests != 2 || st.Shadow.Local.Executions != 1 {
		t.Errorf("%+v", st.Shadow)
	}
}
