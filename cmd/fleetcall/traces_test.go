package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
	"github.com/fleetcall/fleetcall/internal/rig/otlprig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// traced is a replica of the API on a group, whose spans stay in memory.
type traced struct {
	server *api.Server
	traces *traces
	spans  *tracetest.InMemoryExporter
	log    *output
}

func newTraced(t *testing.T, id string, server *redisrig.Server, store api.Store) traced {
	t.Helper()
	r := traced{spans: tracetest.NewInMemoryExporter(), log: &output{}}
	log := slog.New(traceLog{slog.NewTextHandler(r.log, nil)})
	var err error
	if r.traces, err = newTracesTo(t.Context(), r.spans, id, log); err != nil {
		t.Fatal(err)
	}
	hook, err := r.traces.hook()
	if err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience})
	if err := r.traces.redis(client); err != nil {
		t.Fatal(err)
	}
	fleet, err := distributed.Open(client, distributed.WithReplicaID(id), distributed.WithHooks(hook),
		distributed.WithRedisTimeout(patience), distributed.WithLeaseTTL(patience), distributed.WithFlightTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	group, err := distributed.NewGroup[product.Product](fleet, groupName)
	if err != nil {
		t.Fatal(err)
	}
	r.server, err = api.New(api.Config{
		Group: group, Store: store, Mode: modeDistributed, Replica: id, Logger: log,
		Around: r.traces.around, Requested: r.traces.requested,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(fleet.Close(context.Background()), client.Close()); err != nil {
			t.Error(err)
		}
		r.traces.close(context.Background())
	})
	return r
}

// get sends a request through all that is around the API.
func (r traced) get(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r.traces.around(r.server.Handler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func (r traced) span(t *testing.T, name string) tracetest.SpanStub {
	t.Helper()
	if err := r.traces.provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range r.spans.GetSpans() {
		if s.Name == name {
			return s
		}
		names = append(names, s.Name)
	}
	t.Fatalf("no span is called %q, of %q", name, names)
	return tracetest.SpanStub{}
}

func TestAFollowersSpanLinksToTheLeadersOverTwoReplicas(t *testing.T) {
	server := redisrig.Start(t)
	store, err := sqlite.Open(t.Context(), "", product.PoolConfig{Min: 1, Max: 1, Wait: time.Minute, Delay: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a, b := newTraced(t, "a", server, store), newTraced(t, "b", server, store)
	led := make(chan *httptest.ResponseRecorder)
	go func() { led <- a.get("/product/coalesced/1") }()
	client := server.Client()
	eventually(t, "led", func() bool { return client.Exists(t.Context(), "fleetcall:product:{product:1}:lease").Val() == 1 })
	follows := b.get("/product/coalesced/1")
	leads := <-led
	if leads.Header().Get("X-Coalesce-Role") != "leader" || follows.Header().Get("X-Coalesce-Role") != "remote-follower" {
		t.Fatalf("roles %q and %q", leads.Header().Get("X-Coalesce-Role"), follows.Header().Get("X-Coalesce-Role"))
	}
	leader, follower := a.span(t, "fleetcall flight"), b.span(t, "fleetcall flight")
	if len(follower.Links) != 1 || follower.Links[0].SpanContext.SpanID() != leader.SpanContext.SpanID() ||
		follower.Links[0].SpanContext.TraceID() != leader.SpanContext.TraceID() {
		t.Errorf("the follower links to %+v, the leader is %+v", follower.Links, leader.SpanContext)
	}
	for _, r := range []traced{a, b} {
		request, flight := r.span(t, "GET /product/coalesced/:id"), r.span(t, "fleetcall flight")
		if flight.Parent.SpanID() != request.SpanContext.SpanID() {
			t.Errorf("the parent of the flight is %v, the request is %v", flight.Parent.SpanID(), request.SpanContext.SpanID())
		}
		for _, s := range r.spans.GetSpans() {
			for _, attribute := range s.Attributes {
				if strings.Contains(attribute.Value.String(), "product:1") {
					t.Errorf("%s of %q has the key: %s", attribute.Key, s.Name, attribute.Value.String())
				}
			}
		}
	}
}

// broken is a store whose queries fail.
type broken struct{ api.Store }

func (broken) Product(context.Context, int32) (product.Product, error) {
	return product.Product{}, errors.New("broken")
}
func (broken) Stats() product.Stats { return product.Stats{} }

func TestErrorsAreLoggedWithTheirTrace(t *testing.T) {
	r := newTraced(t, "a", redisrig.Start(t), broken{})
	for _, path := range []string{"/product/coalesced/1", "/product/normal/1"} {
		if w := r.get(path); w.Code != http.StatusInternalServerError {
			t.Errorf("%s: %d", path, w.Code)
		}
		name := strings.Replace(path, "/1", "/:id", 1)
		want := "trace_id=" + r.span(t, "GET "+name).SpanContext.TraceID().String()
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("%s: the log does not have %s:\n%s", path, want, r.log)
		}
	}
	if w := r.get("/nothing/secret"); w.Code != http.StatusNotFound {
		t.Error(w.Code)
	}
	r.span(t, http.MethodGet) // whose path is not in its name
}

// patient is a store whose queries end when nobody waits for them.
type patient struct {
	api.Store
	began chan struct{}
}

func (p patient) Product(ctx context.Context, _ int32) (product.Product, error) {
	close(p.began)
	<-ctx.Done()
	return product.Product{}, ctx.Err()
}

func TestTheSpanOfARequestWhoseClientLeftSaysSo(t *testing.T) {
	store := patient{began: make(chan struct{})}
	r := newTraced(t, "a", redisrig.Start(t), store)
	ctx, leave := context.WithCancel(t.Context())
	go func() {
		<-store.began
		leave()
	}()
	r.traces.around(r.server.Handler()).ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/product/normal/1", nil))
	if span := r.span(t, "GET /product/normal/:id"); !slices.Contains(span.Attributes, attribute.String("error.type", "canceled")) {
		t.Errorf("its attributes are %v", span.Attributes)
	}
}

// deaf listens and never answers.
func deaf(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	var conns []net.Conn
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, conn)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-accepted
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	return "http://" + l.Addr().String()
}

func TestACollectorThatCannotBeReachedHurtsNobody(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	for name, endpoint := range map[string]string{"nobody listens": closed.URL, "it hangs": deaf(t)} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "100")
			t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
			t.Setenv("OTEL_BSP_EXPORT_TIMEOUT", "100")
			t.Setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
			t.Setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
			r := start(t, "--query-delay=0s")
			const line = "traces cannot be exported"
			asked := 0
			ask := func() {
				began := time.Now()
				r.expect(t, "/product/normal/1", http.StatusOK)
				if took := time.Since(began); took > patience/2 {
					t.Errorf("a request took %v", took)
				}
				asked++
			}
			eventually(t, "logged", func() bool { ask(); return strings.Contains(r.log.String(), line) })
			for range 100 {
				ask()
			}
			began := time.Now()
			if err := r.stop(); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took > closeLimit+patience/2 {
				t.Errorf("stopping took %v", took)
			}
			if n := strings.Count(r.log.String(), line); n != 1 {
				t.Errorf("%d lines after %d requests:\n%s", n, asked, r.log)
			}
		})
	}
}

func TestTracesAreOffUnlessACollectorIsNamed(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, tt := range []struct {
		env    map[string]string
		on     bool
		refuse string
	}{
		{map[string]string{}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, true, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1"}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, false, ""},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, ""},
	} {
		t.Run(fmt.Sprint(tt.env), func(t *testing.T) {
			for _, name := range []string{"ENDPOINT", "TRACES_ENDPOINT", "PROTOCOL", "TRACES_PROTOCOL"} {
				t.Setenv("OTEL_EXPORTER_OTLP_"+name, "")
			}
			for name, value := range tt.env {
				t.Setenv(name, value)
			}
			traces, err := newTraces(t.Context(), "r", log)
			if (traces != nil) != tt.on || (err != nil) != (tt.refuse != "") || err != nil && !strings.Contains(err.Error(), tt.refuse) {
				t.Errorf("on: %v, %v; want %v, an error that names %q", traces != nil, err, tt.on, tt.refuse)
			}
			if traces != nil {
				traces.close(t.Context())
			}
		})
	}
}

func TestTheEnvironmentNamesTheServiceAndTheSampler(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "shop")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	spans := tracetest.NewInMemoryExporter()
	traces, err := newTracesTo(t.Context(), spans, "replica-7", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer traces.close(context.Background())
	tracer := traces.provider.Tracer("test")
	_, span := tracer.Start(t.Context(), "dropped")
	span.End()
	if err := traces.provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(spans.GetSpans()); n != 0 {
		t.Errorf("%d spans were exported", n)
	}
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	sampled, err := newTracesTo(t.Context(), spans, "replica-7", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer sampled.close(context.Background())
	_, span = sampled.provider.Tracer("test").Start(t.Context(), "kept")
	span.End()
	if err := sampled.provider.ForceFlush(t.Context()); err != nil {
		t.Fatal(err)
	}
	var of bytes.Buffer
	for _, s := range spans.GetSpans() {
		for _, attribute := range s.Resource.Attributes() {
			fmt.Fprintf(&of, "%s=%s ", attribute.Key, attribute.Value.String())
		}
	}
	for _, want := range []string{"service.name=shop ", "service.instance.id=replica-7 ", "service.version="} {
		if !strings.Contains(of.String(), want) {
			t.Errorf("the resource lacks %s: %s", want, of.String())
		}
	}
}

// Compose hands on every variable, those that nobody has set as well.
func TestATraceVariableThatIsEmptyIsAsGoodAsUnset(t *testing.T) {
	for _, name := range []string{"EXPORTER_OTLP_TRACES_ENDPOINT", "EXPORTER_OTLP_HEADERS", "SERVICE_NAME", "RESOURCE_ATTRIBUTES", "TRACES_SAMPLER", "TRACES_SAMPLER_ARG"} {
		t.Setenv("OTEL_"+name, "")
	}
	receiver := otlprig.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	r := start(t, "--replica-id=replica-7")
	r.expect(t, "/product/normal/1", http.StatusOK)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	sent := receiver.Spans(func(s otlprig.Span) bool { return s.Name == "GET /product/normal/:id" })
	if len(sent) != 1 || sent[0].Service != "fleetcall" || sent[0].Instance != "replica-7" {
		t.Errorf("the collector got %+v", sent)
	}
}

func TestAStreamFlowsWithTracesOn(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", closed.URL)
	r := start(t)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := resp.Body.Read(make([]byte, 1)); n != 1 || err != nil { // while the stream is open
		t.Errorf("%d bytes, %v", n, err)
	}
	leave()
	_ = resp.Body.Close()
}
