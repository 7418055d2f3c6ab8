package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"github.com/fleetcall/fleetcall/internal/proof/httpmatrix"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// Each row has a fleet of two proxies of its own, on a namespace of one Redis.
func TestAProxyKeepsTheRules(t *testing.T) {
	redis := redisrig.Start(t)
	var fleets atomic.Int64
	httpmatrix.Run(t, httpmatrix.Front{Start: func(tb testing.TB, handler http.Handler, n int, s httpmatrix.Settings) httpmatrix.Replicas {
		t := tb.(*testing.T)
		server := httptest.NewServer(handler)
		t.Cleanup(server.Close)
		namespace := fmt.Sprintf("matrix-%d", fleets.Add(1))
		var proxies []proxying
		var replicas httpmatrix.Replicas
		for range n {
			p := startProxy(t, server.URL, "--redis-url", redis.URL(), "--namespace", namespace, rulesOf(t, s))
			proxies, replicas.URLs = append(proxies, p), append(replicas.URLs, p.url)
		}
		replicas.Waiting = func() (joined int) {
			for _, p := range proxies {
				joined += p.joins(t)
			}
			return joined
		}
		return replicas
	}})
}

// rulesOf returns the flag for a file with one rule for all paths.
func rulesOf(t testing.TB, s httpmatrix.Settings) string {
	t.Helper()
	rule := map[string]any{"path": "/**", "fields": s.KeyFields, "sort_query": s.SortedQuery, "cookies": s.Cookies}
	if s.IdentityField != "" {
		rule["identity"] = map[string]string{"field": s.IdentityField}
	}
	if s.QueryParameters != nil {
		rule["query_parameters"] = s.QueryParameters
	}
	if s.BodyLimit > 0 {
		rule["body_limit"] = s.BodyLimit
	}
	text, err := json.Marshal(map[string]any{"rules": []any{rule}}) // JSON is YAML
	if err != nil {
		t.Fatal(err)
	}
	return rulesFile(t, string(text))
}

// joins returns how often this replica has asked Redis for a key and got the answer: each of
// its flights does so once, before it leads or follows.
func (p proxying) joins(t testing.TB) int {
	t.Helper()
	families, err := p.replica.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, family := range families {
		if family.GetName() != "fleetcall_redis_command_duration_seconds" {
			continue
		}
		for _, m := range family.GetMetric() {
			if strings.HasPrefix(label(m, "step"), "join") {
				n += int(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return n
}

func label(m *dto.Metric, name string) string {
	for _, pair := range m.GetLabel() {
		if pair.GetName() == name {
			return pair.GetValue()
		}
	}
	return ""
}
