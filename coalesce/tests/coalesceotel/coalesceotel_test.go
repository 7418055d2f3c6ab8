package coalesceotel_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceotel"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) {
	// A client that failed to dial as often as its pool is large dials once a second, and
	// sees only then that it is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"))
}

// replica is a fleet of one group, "rows", whose spans and metrics stay in memory.
type replica struct {
	fleet *distributed.Fleet
	group *distributed.Group[string]
	spans *tracetest.InMemoryExporter
	meter *metric.ManualReader
}

func newReplica(t *testing.T, server *redisrig.Server, sampler trace.Sampler, opts ...coalesceotel.Option) replica {
	return newReplicaWith(t, server, sampler, opts)
}

func newReplicaWith(t *testing.T, server *redisrig.Server, sampler trace.Sampler, opts []coalesceotel.Option, more ...distributed.Option) replica {
	t.Helper()
	r := replica{spans: tracetest.NewInMemoryExporter(), meter: metric.NewManualReader()}
	tracers := trace.NewTracerProvider(trace.WithSyncer(r.spans), trace.WithSampler(sampler))
	meters := metric.NewMeterProvider(metric.WithReader(r.meter))
	opts = append(opts, coalesceotel.WithTracerProvider(tracers), coalesceotel.WithMeterProvider(meters))
	hook, err := coalesceotel.NewHook(opts...)
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, ContextTimeoutEnabled: true, DialTimeout: calm, ReadTimeout: calm, WriteTimeout: calm, PoolTimeout: calm})
	if r.fleet, err = distributed.Open(client, append([]distributed.Option{distributed.WithRedisTimeout(calm / 6), distributed.WithLeaseTTL(calm / 6), distributed.WithHooks(hook)}, more...)...); err != nil {
		t.Fatal(err)
	}
	if r.group, err = distributed.NewGroup[string](r.fleet, "rows"); err != nil {
		t.Fatal(err)
	}
	registration, err := coalesceotel.RegisterStats(r.fleet.Totals, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(registration.Unregister(), r.fleet.Close(context.Background()), client.Close(),
			tracers.Shutdown(context.Background()), meters.Shutdown(context.Background())); err != nil {
			t.Error(err)
		}
	})
	return r
}

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// wait waits until ok.
func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(calm); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Errorf("not %s after %v", what, calm)
			return
		}
	}
}

// share lets b follow a flight that a leads.
func share(t *testing.T, server *redisrig.Server, a, b replica) {
	shareValue(t, server, a, b, "value")
}

func shareValue(t *testing.T, server *redisrig.Server, a, b replica, value string) {
	t.Helper()
	client := server.Client()
	joined, done := make(chan struct{}), make(chan error, 2)
	go func() {
		_, role, err := a.group.Do(context.Background(), "k", func(context.Context) (string, error) {
			<-joined
			return value, nil
		})
		if role != coalesce.Leader {
			err = errors.Join(err, errors.New("the leader is a "+role.String()))
		}
		done <- err
	}()
	wait(t, "led", func() bool { return client.Exists(context.Background(), "fleetcall:rows:{k}:lease").Val() == 1 })
	go func() {
		_, role, err := b.group.Do(context.Background(), "k", func(context.Context) (string, error) { return "own", nil })
		if role != coalesce.RemoteFollower {
			err = errors.Join(err, errors.New("the follower is a "+role.String()))
		}
		done <- err
	}()
	wait(t, "followed", func() bool {
		return strings.HasPrefix(client.Get(context.Background(), "fleetcall:rows:{k}:lease").Val(), "1")
	})
	time.Sleep(50 * time.Millisecond) // so that the function runs when the follower has joined, whatever time a reply took
	time.Sleep(onItsWay)
	close(joined)
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
}

func span(t *testing.T, r replica, name string) tracetest.SpanStub {
	t.Helper()
	var found []tracetest.SpanStub
	for _, s := range r.spans.GetSpans() {
		if s.Name == name {
			found = append(found, s)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d spans are called %q", len(found), name)
	}
	return found[0]
}

func value(s tracetest.SpanStub, key attribute.Key) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

func TestAFollowersSpanLinksToItsLeadersOnAnotherReplica(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newReplica(t, server, trace.AlwaysSample()), newReplica(t, server, trace.AlwaysSample(), coalesceotel.WithKeys())
	share(t, server, a, b)
	leader, function, follower := span(t, a, "fleetcall flight"), span(t, a, "fleetcall function"), span(t, b, "fleetcall flight")
	if function.Parent.SpanID() != leader.SpanContext.SpanID() || len(leader.Links) != 0 {
		t.Errorf("the function's parent is %v, the leader's span %v with links %v", function.Parent.SpanID(), leader.SpanContext.SpanID(), leader.Links)
	}
	if len(follower.Links) != 1 || follower.Links[0].SpanContext.SpanID() != leader.SpanContext.SpanID() ||
		follower.Links[0].SpanContext.TraceID() != leader.SpanContext.TraceID() || !follower.Links[0].SpanContext.IsRemote() {
		t.Errorf("the follower links to %+v, want %+v", follower.Links, leader.SpanContext)
	}
	if follower.SpanContext.TraceID() == leader.SpanContext.TraceID() {
		t.Error("both are in one trace: then a link proves nothing")
	}
	for _, tt := range []struct {
		of   tracetest.SpanStub
		key  attribute.Key
		want string
	}{
		{leader, coalesceotel.RoleKey, "leader"}, {leader, coalesceotel.OutcomeKey, "ok"}, {leader, coalesceotel.GroupKey, "rows"}, {leader, coalesceotel.KeyKey, ""}, {leader, coalesceotel.LagKey, ""},
		{follower, coalesceotel.RoleKey, "remote-follower"}, {follower, coalesceotel.OutcomeKey, "ok"}, {follower, coalesceotel.KeyKey, "k"},
		{follower, coalesceotel.FlightKey, value(leader, coalesceotel.FlightKey)}, {function, coalesceotel.OutcomeKey, "ok"}, {function, coalesceotel.GroupKey, "rows"},
	} {
		if got := value(tt.of, tt.key); got != tt.want {
			t.Errorf("%s of %q is %q, want %q", tt.key, value(tt.of, coalesceotel.RoleKey), got, tt.want)
		}
	}
	if value(follower, coalesceotel.LagKey) == "" || value(leader, coalesceotel.FlightKey) == "" {
		t.Errorf("the follower's attributes are %v", follower.Attributes)
	}
}

// linked fails the test unless span's only link is of that kind, to that other.
func linked(t *testing.T, span tracetest.SpanStub, kind string, to tracetest.SpanStub) {
	t.Helper()
	if len(span.Links) != 1 || span.Links[0].SpanContext.SpanID() != to.SpanContext.SpanID() || span.Links[0].SpanContext.TraceID() != to.SpanContext.TraceID() {
		t.Errorf("%q links to %+v, want %+v", span.Name, span.Links, to.SpanContext)
		return
	}
	is := ""
	for _, a := range span.Links[0].Attributes {
		if a.Key == coalesceotel.LinkKey {
			is = a.Value.String()
		}
	}
	if is != kind {
		t.Errorf("%q has a link to the %q, want the %q", span.Name, is, kind)
	}
}

// TestALocalFollowersSpanLinksToItsFlight: its request shows whose query answered
// it, though another request began the flight.
func TestALocalFollowersSpanLinksToItsFlight(t *testing.T) {
	r := newReplica(t, redisrig.Start(t), trace.AlwaysSample())
	const took = 50 * time.Millisecond
	leads, done := make(chan struct{}), make(chan error, 2)
	go func() {
		_, _, err := r.group.Do(context.Background(), "k", func(context.Context) (string, error) {
			close(leads)
			wait(t, "two wait", func() bool { return r.group.Stats().Local.Waiting == 2 })
			time.Sleep(took) // what the span must tell
			return "value", nil
		})
		done <- err
	}()
	<-leads
	go func() {
		_, _, err := r.group.Do(context.Background(), "k", nil)
		done <- err
	}()
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	flight, follower := span(t, r, "fleetcall flight"), span(t, r, "fleetcall wait")
	linked(t, follower, "flight", flight)
	if value(follower, coalesceotel.RoleKey) != "local-follower" || value(follower, coalesceotel.OutcomeKey) != "ok" || value(follower, coalesceotel.GroupKey) != "rows" ||
		value(follower, coalesceotel.FlightKey) != value(flight, coalesceotel.FlightKey) {
		t.Errorf("the follower's attributes are %v", follower.Attributes)
	}
	if waited := follower.EndTime.Sub(follower.StartTime); waited < took {
		t.Errorf("it waited %v of %v", waited, took)
	}
}

// TestALinkSurvivesHoweverTheOutcomeComes: by message is tested above.
func TestALinkSurvivesHoweverTheOutcomeComes(t *testing.T) {
	t.Run("fetched, since it is large", func(t *testing.T) {
		server := redisrig.Start(t)
		a, b := newReplica(t, server, trace.AlwaysSample()), newReplica(t, server, trace.AlwaysSample())
		shareValue(t, server, a, b, strings.Repeat("x", 1<<20))
		linked(t, span(t, b, "fleetcall flight"), "leader", span(t, a, "fleetcall flight"))
	})
	t.Run("kept for MaxAge", func(t *testing.T) {
		server := redisrig.Start(t)
		a := newReplicaWith(t, server, trace.AlwaysSample(), nil, distributed.WithMaxAge(time.Minute))
		b := newReplicaWith(t, server, trace.AlwaysSample(), nil, distributed.WithMaxAge(time.Minute))
		if _, _, err := a.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "value", nil }); err != nil {
			t.Fatal(err)
		}
		client := server.Client()
		wait(t, "kept", func() bool { return client.Exists(t.Context(), "fleetcall:rows:{k}:latest").Val() == 1 })
		if _, role, err := b.group.Do(t.Context(), "k", nil); role != coalesce.Cached || err != nil {
			t.Fatal(role, err)
		}
		linked(t, span(t, b, "fleetcall flight"), "leader", span(t, a, "fleetcall flight"))
	})
	t.Run("not at all, and it takes over", func(t *testing.T) {
		server := redisrig.Start(t)
		a, b := newReplica(t, server, trace.AlwaysSample()), newReplica(t, server, trace.AlwaysSample())
		client := server.Client()
		followed := make(chan struct{})
		first, second := make(chan error, 1), make(chan error, 1)
		go func() {
			_, _, err := a.group.Do(context.Background(), "k", func(context.Context) (string, error) {
				<-followed
				return "", context.Canceled // it gives up
			})
			first <- err
		}()
		wait(t, "led", func() bool { return client.Exists(t.Context(), "fleetcall:rows:{k}:lease").Val() == 1 })
		go func() {
			_, role, err := b.group.Do(context.Background(), "k", func(context.Context) (string, error) { return "own", nil })
			if role != coalesce.Leader {
				err = errors.Join(err, errors.New("who takes over is a "+role.String()))
			}
			second <- err
		}()
		wait(t, "followed", func() bool { return strings.HasPrefix(client.Get(t.Context(), "fleetcall:rows:{k}:lease").Val(), "1") })
		close(followed)
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := <-second; err != nil {
			t.Fatal(err)
		}
		took := span(t, b, "fleetcall flight")
		linked(t, took, "leader", span(t, a, "fleetcall flight"))
		if value(took, coalesceotel.TakeoverKey) != "true" {
			t.Errorf("its attributes are %v", took.Attributes)
		}
	})
}

func TestASpanThatIsNotSampledIsNotLinkedTo(t *testing.T) {
	server := redisrig.Start(t)
	a, b := newReplica(t, server, trace.NeverSample()), newReplica(t, server, trace.AlwaysSample())
	share(t, server, a, b)
	if follower := span(t, b, "fleetcall flight"); len(follower.Links) != 0 {
		t.Errorf("the follower links to %+v", follower.Links)
	}
	if spans := a.spans.GetSpans(); len(spans) != 0 {
		t.Errorf("the leader exported %v", spans)
	}
}

func TestAnErrorsTextDoesNotLeaveTheProgram(t *testing.T) {
	r := newReplica(t, redisrig.Start(t), trace.AlwaysSample())
	_, _, err := r.group.Do(t.Context(), "k", func(context.Context) (string, error) { return "", errors.New("password=secret") })
	if err == nil {
		t.Fatal("no error")
	}
	for _, s := range r.spans.GetSpans() {
		if s.Status.Code != codes.Error || value(s, coalesceotel.OutcomeKey) != "error" {
			t.Errorf("%s: %+v, %v", s.Name, s.Status, s.Attributes)
		}
		if strings.Contains(s.Status.Description, "secret") || len(s.Events) != 0 {
			t.Errorf("%s tells %q, %v", s.Name, s.Status.Description, s.Events)
		}
	}
}
