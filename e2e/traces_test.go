package e2e_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/otlprig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

const (
	clientSpan  = "00f067aa0ba902b7"
	firstTrace  = "4bf92f3577b34da6a3ce929d0e0e4730"
	secondTrace = "4bf92f3577b34da6a3ce929d0e0e4731"
)

// Two clients, each with its own trace, ask for one product. nginx sends each of them
// to another replica.
func TestAFollowersTraceLinksToTheLeadersOnAnotherReplica(t *testing.T) {
	t.Parallel()
	receiver := otlprig.Start(t)
	f := start(t, setup{
		mode: "distributed", replicas: 2, postgres: database(t), redisURL: redisrig.Start(t).URL(),
		env: []string{"QUERY_DELAY=3s", "OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_BSP_SCHEDULE_DELAY=100"},
	})
	askWithTraces(t, f.URL()+"/product/coalesced/1", firstTrace, secondTrace)
	named := func(name string, more func(otlprig.Span) bool) []otlprig.Span {
		return receiver.Spans(func(s otlprig.Span) bool { return s.Name == name && (more == nil || more(s)) })
	}
	role := func(role string) func(otlprig.Span) bool {
		return func(s otlprig.Span) bool { return s.Attributes["fleetcall.role"] == role }
	}
	eventually(t, "both flights have been exported, and the requests", func() bool {
		return len(named("fleetcall flight", nil)) == 2 && len(named("GET /product/coalesced/:id", nil)) == 2
	})
	leaders, followers := named("fleetcall flight", role("leader")), named("fleetcall flight", role("remote-follower"))
	if len(leaders) != 1 || len(followers) != 1 {
		t.Fatalf("%d leaders and %d followers", len(leaders), len(followers))
	}
	leader, follower := leaders[0], followers[0]
	if len(follower.Links) != 1 || follower.Links[0] != (otlprig.Link{Trace: leader.Trace, ID: leader.ID}) {
		t.Errorf("the follower links to %v, the leader is %s in %s", follower.Links, leader.ID, leader.Trace)
	}
	if leader.Instance == follower.Instance || leader.Trace == follower.Trace || leader.Service != "fleetcall" {
		t.Errorf("the leader is %s of %s in %s, the follower of %s in %s", leader.Service, leader.Instance, leader.Trace, follower.Instance, follower.Trace)
	}
	for _, request := range named("GET /product/coalesced/:id", nil) {
		if request.Parent != clientSpan || request.Trace != firstTrace && request.Trace != secondTrace {
			t.Errorf("a request's parent is %s in %s", request.Parent, request.Trace)
		}
	}
	expectChildren(t, receiver, leader)
	for _, s := range receiver.Spans(func(s otlprig.Span) bool { return s.Parent == "" }) {
		t.Errorf("%q of %s is a trace of its own, and nobody's request", s.Name, s.Instance)
	}
}

// askWithTraces sends a request for each trace, all at the same time.
func askWithTraces(t *testing.T, url string, traces ...string) {
	t.Helper()
	var all sync.WaitGroup
	for _, trace := range traces {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("traceparent", "00-"+trace+"-"+clientSpan+"-01")
			transport := &http.Transport{DisableKeepAlives: true}
			resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %d", resp.StatusCode)
			}
		})
	}
	all.Wait()
}

// expectChildren fails the test unless the spans of the function, its query, and the
// Redis commands are below the leader's span.
func expectChildren(t *testing.T, receiver *otlprig.Receiver, leader otlprig.Span) {
	t.Helper()
	children := func(name string) []otlprig.Span {
		return receiver.Spans(func(s otlprig.Span) bool { return s.Parent == leader.ID && s.Name == name })
	}
	functions := children("fleetcall function")
	if len(functions) != 1 {
		t.Fatalf("%d functions ran under the leader's span", len(functions))
	}
	queries := receiver.Spans(func(s otlprig.Span) bool {
		return s.Trace == leader.Trace && s.Parent == functions[0].ID && s.Attributes["db.query.text"]+s.Attributes["db.statement"] != ""
	})
	if len(queries) != 1 {
		t.Errorf("%d spans of queries under the function's: %v", len(queries), receiver.Spans(func(s otlprig.Span) bool { return s.Trace == leader.Trace }))
	}
	if len(children("evalsha")) == 0 {
		t.Errorf("no span of a Redis command under the leader's: %v", receiver.Spans(func(s otlprig.Span) bool { return s.Parent == leader.ID }))
	}
}
