package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/product"
)

// herd is a burst of requests for one product of the app, whose queries wait in PostgreSQL.
type herd struct {
	app      *app
	requests int

	mu     sync.Mutex
	bodies map[string]int // answers by their bodies, which say when their query was
}

// send sends the burst through nginx, calls during when every request has joined its flight
// and waits there, and lets the queries go on when that has returned. It fails the test
// unless every answer is right.
func (h *herd) send(t *testing.T, during func()) *load.Result {
	t.Helper()
	h.bodies = map[string]int{}
	before := joins(t, h.app)
	release := h.app.postgres.Hold()
	defer release()
	type outcome struct {
		*load.Result
		err error
	}
	sent := make(chan outcome, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{
			URLs: []string{h.app.url + "/product/normal/1"}, Requests: h.requests, Concurrency: h.requests, Connect: true, Check: h.check,
		})
		sent <- outcome{r, err}
	}()
	over := func() bool { return len(sent) > 0 }
	eventually(t, "every request waiting", func() bool { return over() || waiting(t, h.app) == h.requests })
	eventually(t, "every flight having joined", func() bool { return over() || joins(t, h.app)-before >= flights(t, h.app) })
	time.Sleep(onItsWay)
	if len(sent) == 0 {
		during()
	}
	release()
	r := <-sent
	if r.err != nil {
		t.Fatal(r.err)
	}
	if r.OK != h.requests {
		t.Errorf("%d of %d requests answered right; failures: %v", r.OK, h.requests, r.Errors)
	}
	return r.Result
}

// check is a load's Check.
func (h *herd) check(_ string, _ http.Header, body []byte) error {
	h.mu.Lock()
	h.bodies[string(body)]++
	h.mu.Unlock()
	return checkFastAPI(body)
}

// checkFastAPI returns what is wrong with an answer of the app for product 1.
func checkFastAPI(body []byte) error {
	var a struct {
		QueryTime *float64 `json:"query_time_ms"`
		Timestamp *float64 `json:"timestamp"`
		Product   product.Product
		Endpoint  string `json:"endpoint_type"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&a); err != nil {
		return fmt.Errorf("%w in %s", err, body)
	}
	if a.Product != product.Catalogue()[0] || a.QueryTime == nil || a.Timestamp == nil || a.Endpoint != "normal" {
		return fmt.Errorf("the app answers %s", body)
	}
	return nil
}

// It runs alone: nginx closes connections that have waited for too long for their requests.
func TestAThousandRequestsToAFastAPIAppBehindSidecarsCostOneQuery(t *testing.T) {
	a := startApp(t)
	h := herd{app: a, requests: 1000}
	r := h.send(t, func() {})
	n := a.postgres.Queries()
	t.Logf("%d queries, %.2f s, p50 %v, p99 %v, roles %v, replicas %v", n, r.Duration.Seconds(), r.Latency.P50, r.Latency.P99, r.Roles, r.Replicas)
	if n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want 1", n)
	}
	if len(h.bodies) != 1 {
		t.Errorf("%d different answers, want one", len(h.bodies))
	}
	if r.Roles["leader"] != 1 || r.Roles["local-follower"]+r.Roles["remote-follower"] != h.requests-1 {
		t.Errorf("roles %v", r.Roles)
	}
	// What the app says of an error stays as it says it, for one or for many.
	for path, want := range map[string]int{"/product/normal/999999": 404, "/product/normal/0": 422, "/product/normal/abc": 422, "/nothing": 404} {
		if got := mustGet(t, a.url+path); got.status != want || !bytes.HasPrefix(got.body, []byte(`{"detail":`)) {
			t.Errorf("%s: status %d, want %d: %s", path, got.status, want, got.body)
		}
	}
}

// It runs alone, as the one above.
func TestAThousandRequestsOutliveTheSidecarThatLeadsThem(t *testing.T) {
	a := startApp(t, "COALESCE_LEASE_TTL=10s", "COALESCE_REDIS_TIMEOUT=5s")
	h := herd{app: a, requests: 1000}
	r := h.send(t, func() {
		killed := a.leading(t)
		a.sidecars[killed].proc.Kill()
		a.leading(t, killed)
		eventually(t, "every request waiting again", func() bool { return waiting(t, a) == h.requests })
	})
	n := a.postgres.Queries()
	t.Logf("%d queries, %.2f s, p99 %v, roles %v, replicas %v", n, r.Duration.Seconds(), r.Latency.P99, r.Roles, r.Replicas)
	if n < 1 || n > 2 {
		t.Errorf("PostgreSQL saw %d queries, want the killed sidecar's and one more", n)
	}
	if len(h.bodies) != 1 || r.Roles["leader"] != 1 || len(r.Replicas) != 2 {
		t.Errorf("%d different answers of %v in the roles %v, want one of a new leader", len(h.bodies), r.Replicas, r.Roles)
	}
}

// It runs alone, as the one above.
func TestAThousandRequestsOutliveTheWorkerThatRunsTheirQuery(t *testing.T) {
	a := startApp(t)
	h := herd{app: a, requests: 1000}
	killed := 0
	r := h.send(t, func() {
		killed = a.leading(t)
		a.workers[killed].Kill()
		a.leading(t, killed)
		eventually(t, "every request waiting again", func() bool { return waiting(t, a) == h.requests })
	})
	n := a.postgres.Queries()
	t.Logf("%d queries, %.2f s, p99 %v, roles %v, replicas %v", n, r.Duration.Seconds(), r.Latency.P99, r.Roles, r.Replicas)
	// The other sidecars take the flight over; those of the killed worker's sidecar, which
	// nginx sends to the others, come when that has begun, and share others: on a busy machine
	// they come in a few waves.
	if n > 6 {
		t.Errorf("PostgreSQL saw %d queries of the flights after the killed worker's", n)
	}

	// Its sidecar says so, and nginx has another answer in its place.
	url := "http://" + a.sidecars[killed].addr + "/product/normal/1"
	expectProblem(t, mustGet(t, url), http.StatusBadGateway)
	for range 3 {
		if got := mustGet(t, a.url+"/product/normal/1"); got.status != http.StatusOK {
			t.Errorf("without one worker, the app answers %d: %s", got.status, got.body)
		}
	}
	a.workers[killed].Start()
	if got := mustGet(t, url); got.status != http.StatusOK || checkFastAPI(got.body) != nil {
		t.Errorf("the worker is back, and its sidecar answers %d: %s", got.status, got.body)
	}
}
