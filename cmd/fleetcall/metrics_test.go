package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// scrape reads /metrics as Prometheus does.
func (r *running) scrape(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	status, header, body := r.send(t, http.MethodGet, "/metrics")
	if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
		t.Fatalf("/metrics: %d, %s: %s", status, header.Get("Content-Type"), body)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// value sums the samples of a metric that have these labels, those of
// histograms by their counts. ok is false when there is none.
func value(families map[string]*dto.MetricFamily, name string, labels ...string) (sum float64, ok bool) {
	for _, m := range families[name].GetMetric() {
		is := true
		for i := 0; i < len(labels); i += 2 {
			is = is && slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool {
				return l.GetName() == labels[i] && l.GetValue() == labels[i+1]
			})
		}
		if is {
			ok = true
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum, ok
}

// agree fails the test unless /metrics says what /stats does.
func (r *running) agree(t *testing.T, st api.Stats) {
	t.Helper()
	families := r.scrape(t)
	want := func(n uint64, name string, labels ...string) {
		t.Helper()
		if got, ok := value(families, name, labels...); !ok || got != float64(n) {
			t.Errorf("mode %s: %s%v is %v (there: %v), want %d", st.Mode, name, labels, got, ok, n)
		}
	}
	want(1, "fleetcall_replica_info", "replica", st.Replica, "mode", st.Mode)
	want(1, "fleetcall_build_info")
	want(st.Database.Queries, "fleetcall_database_queries_total")
	want(st.Database.Errors, "fleetcall_database_query_errors_total")
	want(uint64(st.Database.Max), "fleetcall_database_connections_max")
	if l := st.Tiers.Local; l != nil {
		want(l.Requests, "fleetcall_local_requests_total", "group", groupName)
		want(l.Leaders, "fleetcall_local_requests_total", "role", "leader")
		want(l.Followers, "fleetcall_local_requests_total", "role", "local-follower")
		want(l.Errors, "fleetcall_local_flight_errors_total")
	} else if _, ok := families["fleetcall_local_requests_total"]; ok {
		t.Errorf("mode %s has metrics of the local tier", st.Mode)
	}
	if d := st.Tiers.Distributed; d != nil {
		want(d.Requests, "fleetcall_distributed_flights_total", "group", groupName)
		want(d.Leaders, "fleetcall_distributed_flights_total", "role", "leader")
		want(d.Followers, "fleetcall_distributed_flights_total", "role", "remote-follower")
		want(d.Fallbacks, "fleetcall_distributed_flights_total", "role", "fallback")
		want(d.Fallbacks, "fleetcall_distributed_fallbacks_total", "group", groupName)
		want(d.Errors, "fleetcall_distributed_flight_errors_total")
		want(d.Takeovers, "fleetcall_distributed_takeovers_total")
		want(d.LeaseLost, "fleetcall_distributed_leases_lost_total")
		want(d.Incompatible, "fleetcall_distributed_incompatible_total", "group", groupName)
		want(d.RedisErrors, "fleetcall_distributed_redis_failures_total")
		want(d.Garbage, "fleetcall_distributed_garbage_total")
		want(uint64(len(d.RedisServers)), "fleetcall_redis_server_up")
		want(0, "fleetcall_redis_server_downs_total")
		want(d.Followers, "fleetcall_follower_lag_seconds", "group", groupName)
	} else {
		for name := range families {
			if strings.HasPrefix(name, "fleetcall_distributed_") || strings.HasPrefix(name, "fleetcall_redis_") || strings.HasPrefix(name, "fleetcall_follower_") {
				t.Errorf("mode %s has the distributed tier's %s", st.Mode, name)
			}
		}
	}
}

// agreeOnBatches fails the test unless the metrics say what the statistics say of one
// request for four products.
func (r *running) agreeOnBatches(t *testing.T, st api.BatchStats) {
	t.Helper()
	if st.Requests != 1 || st.Keys != 4 || st.QueriedKeys != 4 || st.Queries == 0 || st.Errors != 0 {
		t.Errorf("%+v", st)
	}
	families := r.scrape(t)
	for name, want := range map[string]uint64{
		"requests": st.Requests, "request_errors": st.Errors, "keys": st.Keys, "queries": st.Queries, "queried_keys": st.QueriedKeys, "keys_saved": st.KeysSaved,
	} {
		if got, ok := value(families, "fleetcall_http_batch_"+name+"_total"); !ok || got != float64(want) {
			t.Errorf("%s: %v, want %d", name, got, want)
		}
	}
}

// burst asks every replica for one product at once, n times each.
func burst(t *testing.T, n int, replicas ...*running) {
	t.Helper()
	var all sync.WaitGroup
	for _, r := range replicas {
		for range n {
			all.Go(func() { r.expect(t, "/product/coalesced/7", http.StatusOK) })
		}
	}
	all.Wait()
}

// reset resets the statistics, and fails the test unless the counters go on from what
// they were before.
func (r *running) reset(t *testing.T, st api.Stats, families map[string]*dto.MetricFamily) {
	t.Helper()
	r.client.CloseIdleConnections()
	if status, _, body := r.send(t, http.MethodPost, "/stats/reset"); status != http.StatusOK {
		t.Fatalf("%d: %s", status, body)
	}
	after := r.scrape(t)
	for name, family := range families {
		before, _ := value(families, name)
		if now, _ := value(after, name); family.GetType() == dto.MetricType_COUNTER && now < before {
			t.Errorf("%s went from %v to %v", name, before, now)
		}
	}
	if queries, _ := value(after, "fleetcall_database_queries_total"); queries != float64(st.Database.Queries) {
		t.Errorf("%v queries after the reset, were %d", queries, st.Database.Queries)
	}
	if get[api.Stats](t, r, "/stats").Database.Queries != 0 {
		t.Error("the statistics were not reset")
	}
}

func TestMetricsAgreeWithStatsInEveryMode(t *testing.T) {
	database, redis := postgresrig.Start(t), redisrig.Start(t)
	fill(t, database.URL())
	for _, mode := range []string{"off", "local", "distributed"} {
		t.Run(mode, func(t *testing.T) {
			var replicas []*running
			for i := range 2 {
				replicas = append(replicas, start(t, "--mode="+mode, "--redis-url="+redis.URL(), "--query-delay=100ms",
					"--database-url="+database.URL(), fmt.Sprintf("--replica-id=%s-%d", mode, i)))
			}
			const each = 20
			burst(t, each, replicas...)
			replicas[0].expect(t, "/product/coalesced/1001", http.StatusNotFound)
			replicas[0].expect(t, "/product/coalesced/x", http.StatusUnprocessableEntity)
			replicas[0].expect(t, "/nothing/7", http.StatusNotFound)
			for i, r := range replicas {
				st := get[api.Stats](t, r, "/stats")
				r.agree(t, st)
				families := r.scrape(t)
				if n, _ := value(families, "fleetcall_http_request_duration_seconds", "route", "/product/coalesced/:id", "code", "2xx"); n != each {
					t.Errorf("%v requests of the product were answered, want %d", n, each)
				}
				if n, _ := value(families, "fleetcall_call_wait_seconds"); n != float64(st.TotalRequests) {
					t.Errorf("%v waits were measured, of %d requests", n, st.TotalRequests)
				}
				if n, _ := value(families, "fleetcall_function_duration_seconds"); n != float64(st.Misses) {
					t.Errorf("%v functions were measured, of %d", n, st.Misses)
				}
				if _, ok := value(families, "fleetcall_database_pool_acquires_total"); !ok {
					t.Error("the pool is not shown")
				}
				if i == 0 {
					none, _ := value(families, "fleetcall_http_request_duration_seconds", "route", "none", "code", "4xx")
					refused, _ := value(families, "fleetcall_http_request_duration_seconds", "route", "/product/coalesced/:id", "code", "4xx")
					if none != 1 || refused != 2 {
						t.Errorf("%v requests for nothing, %v refused", none, refused)
					}
				}
				r.expect(t, "/products?ids=1,2,3,1001,1", http.StatusOK)
				st = get[api.Stats](t, r, "/stats")
				r.agreeOnBatches(t, st.Batches)
				r.reset(t, st, families)
			}
		})
	}
}

func TestMetricsHaveNoFaultThatALinterFinds(t *testing.T) {
	r := start(t, "--redis-url="+redisrig.Start(t).URL())
	burst(t, 3, r)
	_, _, body := r.send(t, http.MethodGet, "/metrics")
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%+v, %v", problems, err)
	}
	// A label whose values are many is not the linter's business.
	for name, family := range r.scrape(t) {
		if n := len(family.GetMetric()); n > 40 {
			t.Errorf("%s has %d series", name, n)
		}
	}
}

func TestMetricsOfADatabaseInMemoryHaveNoPool(t *testing.T) {
	r := start(t)
	burst(t, 3, r)
	r.agree(t, get[api.Stats](t, r, "/stats"))
	if _, ok := value(r.scrape(t), "fleetcall_database_pool_acquires_total"); ok {
		t.Error("there is a pool of pgx")
	}
	idle, _ := value(r.scrape(t), "fleetcall_database_connections", "state", "idle")
	used, _ := value(r.scrape(t), "fleetcall_database_connections", "state", "in_use")
	if idle+used < 1 {
		t.Errorf("%v connections idle, %v in use", idle, used)
	}
}

// The reference in docs/operating.md has a row for each metric of a replica with
// everything, and no other.
func TestTheManualHasExactlyTheMetrics(t *testing.T) {
	database, redis := postgresrig.Start(t), redisrig.Start(t)
	fill(t, database.URL())
	r := start(t, "--redis-url="+redis.URL(), "--database-url="+database.URL())
	var served []string
	for name, family := range r.scrape(t) {
		if !strings.HasPrefix(name, "fleetcall_") {
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("%s is of none of the families that the manual names", name)
			}
			continue
		}
		var labels []string
		for _, l := range family.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		served = append(served, fmt.Sprintf("%s %s %s", name, strings.ToLower(family.GetType().String()), strings.Join(labels, ", ")))
	}
	manual, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(fleetcall_\\w+)` \\| (\\w+) \\| ?([\\w, ]*?) ?\\| \\S.* \\|$").FindAllStringSubmatch(string(manual), -1) {
		documented = append(documented, fmt.Sprintf("%s %s %s", row[1], row[2], row[3]))
	}
	slices.Sort(served)
	slices.Sort(documented)
	for _, s := range served {
		if !slices.Contains(documented, s) {
			t.Errorf("not in docs/operating.md: %s", s)
		}
	}
	for _, d := range documented {
		if !slices.Contains(served, d) {
			t.Errorf("in docs/operating.md and not served: %s", d)
		}
	}
}

func TestProbesScrapesAndStreamsAreNoRequestsOfClients(t *testing.T) {
	m := newMetrics("r", modeOff, kind{group: groupName})
	for _, route := range []string{"/livez", "/readyz", "/health", "/metrics", "/events", "/stats"} {
		m.requested(api.Request{Route: route, Status: http.StatusOK, Took: time.Hour})
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "fleetcall_http_request_duration_seconds" {
			continue
		}
		all := map[string]*dto.MetricFamily{family.GetName(): family}
		stats, _ := value(all, family.GetName(), "route", "/stats")
		if sum, _ := value(all, family.GetName()); sum != 1 || stats != 1 {
			t.Errorf("%v requests are counted, %v of /stats", sum, stats)
		}
		return
	}
	t.Error("no request is counted")
}
