package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/rig/prometheusrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// startPrometheus starts a Prometheus that watches the fleet with the configuration and
// the rules of deploy/. Only the addresses and the intervals differ.
func startPrometheus(t *testing.T, f *fleet.Fleet) *prometheusrig.Server {
	t.Helper()
	dir := t.TempDir()
	config := readFile(t, "../deploy/prometheus/prometheus.yml")
	for i, r := range f.Replicas() {
		config = replaceOnce(t, config, []string{"replica-1:8000", "replica-2:8000", "replica-3:8000"}[i], strings.TrimPrefix(r.URL, "http://"))
	}
	config = replaceOnce(t, config, "scrape_interval: 15s", "scrape_interval: 500ms")
	config = replaceOnce(t, config, "evaluation_interval: 15s", "evaluation_interval: 500ms")
	for name, text := range map[string]string{"prometheus.yml": config, "alerts.yml": readFile(t, "../deploy/prometheus/alerts.yml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return prometheusrig.Start(t, filepath.Join(dir, "prometheus.yml"))
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func replaceOnce(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is in it %d times", old, strings.Count(text, old))
	}
	return strings.Replace(text, old, replacement, 1)
}

type rule struct{ Name, Query, Health, LastError, State string }

func rules(t *testing.T, p *prometheusrig.Server) []rule {
	t.Helper()
	var data struct{ Groups []struct{ Rules []rule } }
	if err := p.Get("/api/v1/rules", nil, &data); err != nil {
		t.Fatal(err)
	}
	var all []rule
	for _, group := range data.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// dashboard returns the expressions of the Grafana dashboard by panel.
func dashboard(t *testing.T) map[string]string {
	t.Helper()
	var d struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, "../deploy/grafana/dashboards/fleetcall.json")), &d); err != nil {
		t.Fatal(err)
	}
	variables := strings.NewReplacer("$job", "fleetcall", "$instance", ".*", "$__rate_interval", "1m")
	all := map[string]string{}
	for _, panel := range d.Panels {
		for _, target := range panel.Targets {
			all[panel.Title+" "+target.RefID] = variables.Replace(target.Expr)
		}
	}
	return all
}

// watch is a fleet and the Prometheus that watches it.
type watch struct {
	fleet      *fleet.Fleet
	prometheus *prometheusrig.Server
}

func TestPrometheusWatchesAFleetWithTheRulesAndTheDashboardOfDeploy(t *testing.T) {
	t.Parallel()
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", replicas: 3, postgres: database(t), redisURL: redis.URL()})
	w := &watch{f, startPrometheus(t, f)}
	eventually(t, "all replicas have been scraped before the burst", func() bool {
		return w.value(`count(count_over_time(fleetcall_build_info[1m]) >= 1)`) == "3"
	})
	sendBurst(t, f, 60)
	if r := mustGet(t, f.URL()+"/metrics"); r.status != http.StatusNotFound {
		t.Errorf("the balancer answers /metrics with %d", r.status)
	}
	w.metricsAgreeWithStats(t)
	w.noAlertFires(t)
	w.everyPanelShowsSomething(t)
	pending := func(alert string) func() bool {
		return func() bool {
			return slices.ContainsFunc(rules(t, w.prometheus), func(r rule) bool { return r.Name == alert && r.State == "pending" })
		}
	}
	redis.Kill()
	sendBurst(t, f, 3) // a server that nobody asks is not known to be down
	eventually(t, "a Redis server that is down is seen", pending("FleetcallRedisServerDown"))
	if err := f.Replicas()[0].Stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a replica that is down is seen", pending("FleetcallReplicaDown"))
}

// value returns the value of an expression that has exactly one result, and otherwise
// an empty string.
func (w *watch) value(expr string) string {
	got, err := w.prometheus.Query(expr)
	if err != nil || len(got) != 1 {
		return ""
	}
	value, _ := got[0].Value[1].(string)
	return value
}

func (w *watch) metricsAgreeWithStats(t *testing.T) {
	t.Helper()
	st := fleetStats(t, w.fleet)
	for expr, want := range map[string]int64{
		`sum(fleetcall_local_requests_total)`:                                                           st.Tiers.Local.Requests,
		`sum(fleetcall_distributed_flights_total)`:                                                      st.Tiers.Distributed.Requests,
		`sum(fleetcall_distributed_flights_total{role="leader"})`:                                       st.Tiers.Distributed.Leaders,
		`sum(fleetcall_distributed_flights_total{role="remote-follower"})`:                              st.Tiers.Distributed.Followers,
		`sum(fleetcall_follower_lag_seconds_count)`:                                                     st.Tiers.Distributed.Followers,
		`sum(fleetcall_database_queries_total)`:                                                         st.Database.Queries,
		`sum(fleetcall_http_request_duration_seconds_count{code="2xx",route="/product/coalesced/:id"})`: 60,
	} {
		eventually(t, fmt.Sprintf("%s is %d, as /stats says", expr, want), func() bool { return w.value(expr) == fmt.Sprint(want) })
	}
}

var selector = regexp.MustCompile(`\b(?:(?:fleetcall|go|process)_[a-z0-9_]+|up)\b(?:\{[^}]*\})?`)

// query evaluates an expression. It fails the test unless a replica has each metric in
// it. On a busy machine a scrape may come too late, and the metrics are gone until the next.
func (w *watch) query(t *testing.T, of, expr string) []prometheusrig.Sample {
	t.Helper()
	found := selector.FindAllString(expr, -1)
	if len(found) == 0 {
		t.Errorf("%s: no metric in %s", of, expr)
	}
	for _, series := range found {
		eventually(t, fmt.Sprintf("%s: a replica has %s", of, series), func() bool {
			n, err := w.prometheus.Query(series)
			return err == nil && len(n) > 0
		})
	}
	samples, err := w.prometheus.Query(expr)
	if err != nil {
		t.Errorf("%s: %v", of, err)
	}
	return samples
}

func (w *watch) noAlertFires(t *testing.T) {
	t.Helper()
	eventually(t, "every rule has been evaluated", func() bool {
		return !slices.ContainsFunc(rules(t, w.prometheus), func(r rule) bool { return r.Health == "unknown" })
	})
	all := rules(t, w.prometheus)
	if n := strings.Count(readFile(t, "../deploy/prometheus/alerts.yml"), "- alert: "); len(all) != n || n == 0 {
		t.Errorf("%d rules, want %d", len(all), n)
	}
	for _, r := range all {
		firing := w.query(t, r.Name, r.Query)
		if r.Name == "FleetcallRedisSlow" || r.Name == "FleetcallFollowerLagHigh" {
			continue // a busy machine may be slow
		}
		if r.Health != "ok" || r.State != "inactive" {
			t.Errorf("%s of a healthy fleet is %s, %s %s", r.Name, r.State, r.Health, r.LastError)
		}
		if len(firing) != 0 {
			t.Errorf("%s of a healthy fleet: %v", r.Name, firing)
		}
	}
}

func (w *watch) everyPanelShowsSomething(t *testing.T) {
	t.Helper()
	expressions := dashboard(t)
	if len(expressions) < 20 {
		t.Errorf("%d expressions are on the dashboard", len(expressions))
	}
	for of, expr := range expressions {
		if strings.Contains(expr, "$") {
			t.Errorf("%s has a variable that nothing sets: %s", of, expr)
		}
		// Expressions that end with > 0 show problems, which a healthy fleet does not have.
		if strings.HasSuffix(expr, "> 0") {
			w.query(t, of, expr)
			continue
		}
		eventually(t, fmt.Sprintf("%s shows something: %s", of, expr), func() bool { return len(w.query(t, of, expr)) > 0 })
	}
}
