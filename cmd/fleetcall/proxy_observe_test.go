package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/otlprig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestATraceGoesThroughAProxyToItsUpstream(t *testing.T) {
	collector := otlprig.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	got := make(chan string, 1)
	p := startProxy(t, origin(t, func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Traceparent") }))
	p.exchangeAny(t, "/health", "Traceparent", fmt.Sprintf("00-%s-%s-01", trace, parent))
	upstream := <-got
	if !strings.HasPrefix(upstream, "00-"+trace+"-") || strings.Contains(upstream, parent) {
		t.Errorf("the upstream got the traceparent %s", upstream)
	}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	// From the span that the upstream was told up to the client's.
	var names []string
	for id := strings.Split(upstream, "-")[2]; id != parent; {
		spans := collector.Spans(func(s otlprig.Span) bool { return s.ID == id && s.Trace == trace })
		if len(spans) != 1 {
			t.Fatalf("%d spans %s, after %q", len(spans), id, names)
		}
		names, id = append(names, spans[0].Name), spans[0].Parent
	}
	if len(names) < 3 || names[len(names)-1] != "GET default" {
		t.Errorf("the spans are %q", names)
	}
}

// What each replica counts sums up to what the upstream saw, whatever way the requests took.
func TestTheStatisticsOfAFleetOfProxiesAreExact(t *testing.T) {
	redis := redisrig.Start(t)
	release := make(chan struct{})
	server := origin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/shared" {
			<-release
		}
		if r.URL.Path == "/private" {
			w.Header().Set("Cache-Control", "private")
		}
	})
	const replicas, each = 3, 20
	var fleet []proxying
	for range replicas {
		fleet = append(fleet, startProxy(t, server, "--redis-url", redis.URL()))
	}
	var clients sync.WaitGroup
	for _, p := range fleet {
		for range each {
			clients.Go(func() { p.exchangeAny(t, "/shared") })
		}
	}
	eventually(t, "merged", func() bool {
		merged, joins := uint64(0), 0
		for _, p := range fleet {
			merged += get[api.Stats](t, p.admin, "/stats").Tiers.Local.Requests
			joins += p.joins(t)
		}
		return merged == replicas*each && joins == replicas
	})
	close(release)
	clients.Wait()
	for range 4 {
		fleet[0].exchangeAny(t, "/private")
	}
	fleet[1].send(t, http.MethodPost, "/shared")
	sum := fleet[2].wholeFleet(t, replicas)
	if sum.TotalRequests+sum.Upstream.Alone != replicas*each+5 || sum.Misses+sum.Upstream.Alone != sum.Upstream.Requests || sum.Hits != replicas*each-1 || sum.Errors != 0 || sum.ActiveCalls != 0 {
		t.Errorf("%+v, %+v", sum, sum.Upstream)
	}
	if sum.Upstream.Requests != 6 || sum.Upstream.AloneBy["method"] != 1 || sum.Upstream.AloneBy["remembered"] != 3 {
		t.Errorf("%+v", sum.Upstream)
	}
	if sum.Tiers.Distributed == nil || sum.Tiers.Distributed.Followers != replicas-1 || len(sum.Replicas) != replicas {
		t.Errorf("%+v", sum.Tiers)
	}
}

// wholeFleet returns the statistics of all replicas, once all have answered and none has a
// request under way.
func (p proxying) wholeFleet(t *testing.T, replicas int) (sum api.Stats) {
	t.Helper()
	eventually(t, "all replicas answer", func() bool {
		sum = get[api.Stats](t, p.admin, "/stats?scope=fleet")
		return len(sum.Replicas) == replicas && sum.ActiveCalls == 0
	})
	return sum
}

// exchangeAny sends a request with fields and expects a 200 with any body.
func (p proxying) exchangeAny(t *testing.T, path string, fields ...string) {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, p.url+path, nil)
	if err != nil {
		t.Error(err)
		return
	}
	r.Host = "shop.example"
	for i := 0; i < len(fields); i += 2 {
		r.Header.Set(fields[i], fields[i+1])
	}
	resp, err := p.client.Do(r)
	if err != nil {
		t.Error(err)
		return
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", path, resp.Status)
	}
}
