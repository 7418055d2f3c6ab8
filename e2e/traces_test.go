package e2e_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/otlprig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// Two clients with traces of their own ask, through nginx, one replica each for
// the same product.
func TestAFollowersTraceLinksToTheLeadersOnAnotherReplica(t *testing.T) {
	receiver := otlprig.Start(t)
	f := start(t, setup{
		mode: "distributed", replicas: 2, postgres: database(t), redisURL: redisrig.Start(t).URL(),
		env: []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + receiver.URL, "OTEL_BSP_SCHEDULE_DELAY=100"},
	})
	const client = "00f067aa0ba902b7"
	traceOf := func(i int) string { return fmt.Sprintf("4bf92f3577b34da6a3ce929d0e0e473%d", i) }
	var both sync.WaitGroup
	for i := range 2 {
		both.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.URL()+"/product/coalesced/1", nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("traceparent", "00-"+traceOf(i)+"-"+client+"-01")
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
	both.Wait()
	of := func(name string, more func(otlprig.Span) bool) []otlprig.Span {
		return receiver.Spans(func(s otlprig.Span) bool { return s.Name == name && (more == nil || more(s)) })
	}
	role := func(role string) func(otlprig.Span) bool {
		return func(s otlprig.Span) bool { return s.Attributes["fleetcall.role"] == role }
	}
	eventually(t, "both flights have been exported, and the requests", func() bool {
		return len(of("fleetcall flight", nil)) == 2 && len(of("GET /product/coalesced/:id", nil)) == 2
	})
	leaders, followers := of("fleetcall flight", role("leader")), of("fleetcall flight", role("remote-follower"))
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
	// A client's trace goes through nginx, and on to the query and Redis.
	for _, request := range of("GET /product/coalesced/:id", nil) {
		if request.Parent != client || request.Trace != traceOf(0) && request.Trace != traceOf(1) {
			t.Errorf("a request's parent is %s in %s", request.Parent, request.Trace)
		}
	}
	child := func(s otlprig.Span) bool { return s.Parent == leader.ID }
	functions := of("fleetcall function", child)
	if len(functions) != 1 {
		t.Fatalf("%d functions ran under the leader's span", len(functions))
	}
	queries := receiver.Spans(func(s otlprig.Span) bool {
		return s.Trace == leader.Trace && s.Parent == functions[0].ID && s.Attributes["db.query.text"]+s.Attributes["db.statement"] != ""
	})
	if len(queries) != 1 {
		t.Errorf("%d spans of queries under the function's: %v", len(queries), receiver.Spans(func(s otlprig.Span) bool { return s.Trace == leader.Trace }))
	}
	if commands := of("evalsha", child); len(commands) == 0 {
		t.Errorf("no span of a Redis command under the leader's: %v", receiver.Spans(child))
	}
	for _, s := range receiver.Spans(func(s otlprig.Span) bool { return s.Parent == "" }) {
		t.Errorf("%q of %s is a trace of its own, and nobody's request", s.Name, s.Instance)
	}
}
