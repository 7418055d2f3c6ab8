package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is a Store whose query is a function of the test's.
type store struct {
	product.Counters
	query func(ctx context.Context, id int32) (product.Product, error)
	ping  func(ctx context.Context) error
}

func (s *store) Product(ctx context.Context, id int32) (product.Product, error) {
	if s.query != nil {
		return s.query(ctx, id)
	}
	s.Sent(ctx)
	if all := product.Catalogue(); int(id) <= len(all) {
		return all[id-1], nil
	}
	return product.Product{}, product.ErrNotFound
}

func (s *store) Ping(ctx context.Context) error {
	if s.ping != nil {
		return s.ping(ctx)
	}
	return nil
}

func (s *store) Stats() product.Stats {
	st := product.Stats{Idle: 5, Max: 10}
	st.Queries, st.Errors = s.Load()
	return st
}

func (s *store) ResetStats() { s.Reset() }

// failing returns a store whose queries return err.
func failing(err error) *store {
	return &store{query: func(context.Context, int32) (product.Product, error) { return product.Product{}, err }}
}

// fixture is a server and what it logs.
type fixture struct {
	*api.Server
	url string
	log *buffer
}

type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, s *store, change func(*api.Config)) *fixture {
	t.Helper()
	group := &local.Group[string, product.Product]{}
	log := &buffer{}
	config := api.Config{
		Group:   local.Tier(group),
		Store:   s,
		Mode:    "local",
		Replica: "test:1",
		Tiers: func() api.Tiers {
			st := group.Stats()
			return api.Tiers{Local: &api.LocalTier{Requests: st.Requests, Leaders: st.Leaders, Followers: st.Followers}}
		},
		ResetTiers: group.ResetStats,
		Logger:     slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, nil)}),
	}
	if change != nil {
		change(&config)
	}
	server, err := api.New(config)
	if err != nil {
		t.Fatal(err)
	}
	listening := httptest.NewServer(server.Handler())
	t.Cleanup(listening.Close)
	return &fixture{Server: server, url: listening.URL, log: log}
}

type answer struct {
	status int
	header http.Header
	body   string
}

func (f *fixture) send(t *testing.T, method, path string, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()
	a := answer{resp.StatusCode, resp.Header, string(body)}
	holds(t, req, a)
	expectSecurityHeaders(t, a)
	return a
}

func (f *fixture) get(t *testing.T, path string) answer {
	t.Helper()
	return f.send(t, http.MethodGet, path, nil)
}

func decode[T any](t *testing.T, a answer) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

func expectProblem(t *testing.T, a answer, status int) api.Problem {
	t.Helper()
	if a.status != status {
		t.Errorf("status %d, want %d: %s", a.status, status, a.body)
	}
	if kind := a.header.Get("Content-Type"); kind != "application/problem+json" {
		t.Errorf("Content-Type %q", kind)
	}
	p := decode[api.Problem](t, a)
	if p.Type == "" || p.Title == "" || p.Detail == "" || p.Status != status {
		t.Errorf("incomplete problem %+v", p)
	}
	return p
}

func TestProductEndpointsAnswerAsTheContractSays(t *testing.T) {
	f := start(t, &store{}, nil)
	for kind, role := range map[string]string{"normal": "none", "coalesced": "leader"} {
		t.Run(kind, func(t *testing.T) {
			a := f.get(t, "/product/"+kind+"/1")
			if a.status != http.StatusOK {
				t.Fatalf("status %d: %s", a.status, a.body)
			}
			got := decode[api.ProductAnswer](t, a)
			if got.Product != product.Catalogue()[0] || got.EndpointType != kind {
				t.Errorf("got %+v", got)
			}
			if age := time.Since(time.UnixMilli(int64(got.Timestamp * 1000))); age < -time.Second || age > time.Minute {
				t.Errorf("timestamp %v is %v old", got.Timestamp, age)
			}
			for name, want := range map[string]string{
				"Content-Type": "application/json", "X-Replica": "test:1", "X-Coalesce-Role": role,
				"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			var raw map[string]json.RawMessage
			if err := json.Unmarshal([]byte(a.body), &raw); err != nil {
				t.Fatal(err)
			}
			want := `{"id":1,"name":"MacBook Pro 16-inch","price":2499.99,"description":"Powerful laptop with M3 Pro chip"}`
			if string(raw["product"]) != want {
				t.Errorf("product %s, want %s", raw["product"], want)
			}
		})
	}
}

func TestUnknownProductIs404AndNoError(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, kind := range []string{"normal", "coalesced"} {
		expectProblem(t, f.get(t, "/product/"+kind+"/1001"), http.StatusNotFound)
	}
	if st := f.Stats(); st.Errors != 0 || st.TotalRequests != 1 || st.Misses != 1 || st.Database.Queries != 2 {
		t.Errorf("%+v", st)
	}
}

func TestIDThatIsNoPositive32BitNumberIs422(t *testing.T) {
	f := start(t, failing(errors.New("must not be asked")), nil)
	for _, id := range []string{"0", "-1", "+1", "01", "1.0", "1e3", "0x1", "abc", "%20", "1%20", "2147483648", "99999999999999999999", "%D9%A1", "1%2F2", "1_0"} {
		for _, kind := range []string{"normal", "coalesced"} {
			a := f.get(t, "/product/"+kind+"/"+id)
			if a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: status %d", id, a.status)
				continue
			}
			expectProblem(t, a, http.StatusUnprocessableEntity)
		}
	}
	if a := start(t, &store{}, nil).get(t, "/product/normal/2147483647"); a.status != http.StatusNotFound {
		t.Errorf("the largest id: status %d", a.status)
	}
}

func TestErrorsOfTheQueryBecomeTheContractsProblems(t *testing.T) {
	const secret = "host=db.internal password=hunter2"
	wrap := func(err error) error { return fmt.Errorf("%s: %w", secret, err) }
	remote := func(err error) error {
		return &coalesce.RemoteError{Message: secret, Names: coalesce.ErrorNames(err)}
	}
	for name, c := range map[string]struct {
		err    error
		status int
		retry  bool
	}{
		"database down":                    {wrap(product.ErrUnavailable), 503, true},
		"database down, elsewhere":         {remote(product.ErrUnavailable), 503, true},
		"pool wait over its limit":         {wrap(product.ErrBusy), 503, true},
		"pool wait, elsewhere":             {remote(product.ErrBusy), 503, true},
		"flight timeout":                   {wrap(coalesce.ErrFlightTimeout), 504, false},
		"flight timeout, elsewhere":        {remote(coalesce.ErrFlightTimeout), 504, false},
		"deadline":                         {context.DeadlineExceeded, 504, false},
		"not found, elsewhere":             {remote(product.ErrNotFound), 404, false},
		"Redis, failing closed":            {wrap(coalesce.ErrUnavailable), 503, true},
		"every leader died":                {wrap(coalesce.ErrPoisoned), 503, true},
		"closed":                           {coalesce.ErrClosed, 503, true},
		"panic elsewhere":                  {wrap(coalesce.ErrRemotePanic), 500, false},
		"anything else":                    {errors.New(secret), 500, false},
		"anything else, on another server": {&coalesce.RemoteError{Message: secret}, 500, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, failing(c.err), nil)
			for _, kind := range []string{"normal", "coalesced"} {
				a := f.get(t, "/product/"+kind+"/1")
				expectProblem(t, a, c.status)
				if strings.Contains(a.body, "hunter2") || strings.Contains(a.body, "db.internal") {
					t.Errorf("internals leak: %s", a.body)
				}
				if got := a.header.Get("Retry-After") != ""; got != c.retry {
					t.Errorf("Retry-After: %q", a.header.Get("Retry-After"))
				}
			}
			wantErrors := uint64(1)
			if c.status == http.StatusNotFound {
				wantErrors = 0
			}
			if st := f.Stats(); st.Errors != wantErrors || st.Misses != 0 {
				t.Errorf("no query was sent, %d error expected: %+v", wantErrors, st)
			}
		})
	}
}

func TestDatabaseThatGoesAndComesBackIsLoggedOncePerChange(t *testing.T) {
	var down atomic.Bool
	s := &store{}
	s.query = func(context.Context, int32) (product.Product, error) {
		if down.Load() {
			return product.Product{}, product.ErrUnavailable
		}
		return product.Catalogue()[0], nil
	}
	f := start(t, s, nil)
	for _, state := range []bool{false, true, true, true, false, false} {
		down.Store(state)
		f.get(t, "/product/normal/1")
		f.get(t, "/product/coalesced/1")
	}
	for _, line := range []string{"the database is unavailable", "the database is back"} {
		if n := strings.Count(f.log.String(), `msg="`+line); n != 1 {
			t.Errorf("%q is logged %d times:\n%s", line, n, f.log)
		}
	}
}

func TestUnknownRoutesAndMethodsAreProblems(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, path := range []string{"/nothing", "/product/normal", "/product/other/1", "/stats/reset/x"} {
		expectProblem(t, f.get(t, path), http.StatusNotFound)
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/stats", "GET"}, {"DELETE", "/product/coalesced/1", "GET"}, {"GET", "/stats/reset", "POST"}, {"PUT", "/", "GET"},
	} {
		a := f.send(t, c.method, c.path, nil)
		expectProblem(t, a, http.StatusMethodNotAllowed)
		if !strings.Contains(a.header.Get("Allow"), c.allow) {
			t.Errorf("%s %s: Allow %q", c.method, c.path, a.header.Get("Allow"))
		}
	}
}

func TestPanicOfTheQueryIs500WithoutInternalsAndLoggedOnceWithItsStack(t *testing.T) {
	release := make(chan struct{})
	s := &store{}
	f := start(t, s, nil)
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		s.Sent(ctx)
		<-release
		panic("hunter2")
	}
	const callers = 20
	answers := make(chan answer, callers)
	for range callers {
		go func() { answers <- f.get(t, "/product/coalesced/1") }()
	}
	for f.Stats().Tiers.Local.Requests != callers {
		time.Sleep(time.Millisecond) // no event announces it
	}
	close(release)
	for range callers {
		a := <-answers
		expectProblem(t, a, http.StatusInternalServerError)
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("internals leak: %s", a.body)
		}
	}
	if log := f.log.String(); strings.Count(log, "a request panicked") != 1 || !strings.Contains(log, "api_test.go") {
		t.Errorf("want one entry with the function's stack:\n%s", log)
	}
	if st := f.Stats(); st.Errors != callers || st.Misses != 1 || st.Hits != 0 || st.ActiveCalls != 0 {
		t.Errorf("%+v", st)
	}

	expectProblem(t, f.get(t, "/product/normal/1"), http.StatusInternalServerError)
	if log := f.log.String(); strings.Count(log, "a request panicked") != 2 {
		t.Errorf("the normal endpoint's panic is not logged:\n%s", log)
	}
}

func TestThousandRequestsShareOneQueryAndStatsSaySo(t *testing.T) {
	release := make(chan struct{})
	s := &store{}
	s.query = func(ctx context.Context, id int32) (product.Product, error) {
		<-release
		s.Sent(ctx)
		return product.Catalogue()[id-1], nil
	}
	f := start(t, s, nil)
	var all sync.WaitGroup
	var leaders atomic.Int64
	for range 1000 {
		all.Go(func() {
			// Straight into the handler: a thousand sockets are not what is tested.
			w := httptest.NewRecorder()
			f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil))
			if w.Code != http.StatusOK {
				t.Errorf("status %d", w.Code)
			}
			if w.Header().Get("X-Coalesce-Role") == "leader" {
				leaders.Add(1)
			}
			// The counts include an answer by the time it is here.
			if st := f.Stats(); st.Hits+st.Misses == 0 {
				t.Error("answered before it was counted")
			}
		})
	}
	for f.Stats().ActiveCalls != 1000 || f.Stats().Tiers.Local.Requests != 1000 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	close(release)
	all.Wait()
	st := f.Stats()
	if leaders.Load() != 1 || st.Hits != 999 || st.Misses != 1 || st.Errors != 0 || st.ActiveCalls != 0 || st.HitRate != "99.9%" ||
		st.TotalRequests != 1000 || st.QueriesPrevented != 999 || st.Database.Queries != 1 || st.Tiers.Local.HitRate != "99.9%" {
		t.Errorf("%d leaders, %+v", leaders.Load(), st)
	}
}

func TestStatsHaveTheContractsFieldsAndOnlyTheTiersThatAreOn(t *testing.T) {
	tiers := map[string]api.Tiers{
		"off":         {},
		"local":       {Local: &api.LocalTier{Requests: 1000, Leaders: 3, Followers: 997}},
		"distributed": {Local: &api.LocalTier{Requests: 1000, Leaders: 3, Followers: 997}, Distributed: &api.DistributedTier{Requests: 3, Leaders: 1, Followers: 2, Breaker: "closed"}},
	}
	want := map[string]string{
		"off":   `{}`,
		"local": `{"local":{"requests":1000,"leaders":3,"followers":997,"errors":0,"active_flights":0,"waiting":0,"hit_rate":"99.7%"}}`,
		"distributed": `{"local":{"requests":1000,"leaders":3,"followers":997,"errors":0,"active_flights":0,"waiting":0,"hit_rate":"99.7%"},` +
			`"distributed":{"requests":3,"leaders":1,"followers":2,"cached":0,"fallbacks":0,"takeovers":0,"lease_lost":0,"errors":0,` +
			`"redis_errors":0,"active_flights":0,"hit_rate":"66.7%","breaker":"closed"}}`,
	}
	for mode := range tiers {
		t.Run(mode, func(t *testing.T) {
			f := start(t, &store{}, func(c *api.Config) {
				c.Mode = mode
				c.Tiers = func() api.Tiers {
					fresh := api.Tiers{}
					if l := tiers[mode].Local; l != nil {
						copied := *l
						fresh.Local = &copied
					}
					if d := tiers[mode].Distributed; d != nil {
						copied := *d
						fresh.Distributed = &copied
					}
					return fresh
				}
			})
			f.get(t, "/product/coalesced/1")
			f.get(t, "/product/normal/2")
			var got map[string]json.RawMessage
			if err := json.Unmarshal([]byte(f.get(t, "/stats").body), &got); err != nil {
				t.Fatal(err)
			}
			for field, want := range map[string]string{
				"scope": `"replica"`, "replica": `"test:1"`, "mode": `"` + mode + `"`, "hits": "0", "misses": "1", "errors": "0",
				"active_calls": "0", "hit_rate": `"0.0%"`, "total_requests": "1", "queries_prevented": "0",
				"database": `{"queries":2,"errors":0,"in_use":0,"idle":5,"max":10}`, "tiers": want[mode],
			} {
				if compact(t, got[field]) != want {
					t.Errorf("%s: %s, want %s", field, got[field], want)
				}
			}
			if got["uptime_seconds"] == nil || got["replicas"] != nil || got["missing"] != nil {
				t.Errorf("got %v", got)
			}
		})
	}
}

func compact(t *testing.T, raw json.RawMessage) string {
	t.Helper()
	var s strings.Builder
	var v any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
	// Compared without re-ordering the fields.
	inString := false
	for _, r := range string(raw) {
		if r == '"' {
			inString = !inString
		}
		if inString || r != ' ' && r != '\n' {
			s.WriteRune(r)
		}
	}
	return s.String()
}

// fleetOf answers with other servers' answers.
type fleetOf struct {
	servers []*api.Server
	missing int
	err     error
}

func (f *fleetOf) Ask(ctx context.Context, question string, _ int) (answers [][]byte, missing int, err error) {
	for _, s := range f.servers {
		a, err := s.Answer(ctx, question)
		if err != nil {
			return nil, 0, err
		}
		answers = append(answers, a)
	}
	return answers, f.missing, f.err
}

func TestFleetScopeSumsTheReplicasAndListsThem(t *testing.T) {
	fleet := &fleetOf{}
	breakers := []string{"closed", "open", "half-open"}
	var fixtures []*fixture
	for i, breaker := range breakers {
		f := start(t, &store{}, func(c *api.Config) {
			c.Replica = fmt.Sprintf("replica-%d", i)
			c.Fleet = fleet
			c.Mode = "distributed"
			c.Tiers = func() api.Tiers {
				return api.Tiers{
					Local: &api.LocalTier{Requests: 10, Leaders: 1, Followers: 9},
					Distributed: &api.DistributedTier{Requests: 1, Leaders: 1, RedisErrors: 2, Breaker: breaker,
						RedisErrorsBy: map[string]uint64{"timeout": 2}},
				}
			}
		})
		fleet.servers = append(fleet.servers, f.Server)
		fixtures = append(fixtures, f)
	}
	for i, f := range fixtures {
		for range i + 1 {
			f.get(t, "/product/coalesced/1")
		}
	}
	sum := decode[api.Stats](t, fixtures[1].get(t, "/stats?scope=fleet"))
	if sum.Scope != "fleet" || sum.Replica != "replica-1" || sum.Misses != 6 || sum.TotalRequests != 6 || sum.Database.Queries != 6 || sum.Database.Max != 30 {
		t.Errorf("%+v", sum)
	}
	if l := sum.Tiers.Local; l == nil || l.Requests != 30 || l.HitRate != "90.0%" {
		t.Errorf("local %+v", l)
	}
	if d := sum.Tiers.Distributed; d == nil || d.Leaders != 3 || d.Breaker != "open" || d.RedisErrorsBy["timeout"] != 6 {
		t.Errorf("distributed %+v", d)
	}
	if sum.Missing == nil || *sum.Missing != 0 || sum.Note != "" || len(sum.Replicas) != 3 {
		t.Fatalf("%+v", sum)
	}
	for i, r := range sum.Replicas {
		if r.Replica != fmt.Sprintf("replica-%d", i) || r.Misses != uint64(i+1) || r.Scope != "replica" {
			t.Errorf("replica %d: %+v", i, r)
		}
	}

	fleet.missing = 1
	if sum := decode[api.Stats](t, fixtures[0].get(t, "/stats?scope=fleet")); *sum.Missing != 1 || sum.Note == "" {
		t.Errorf("a missing replica is not told: %+v", sum)
	}
	fleet.missing = 0

	a := decode[api.ResetAnswer](t, fixtures[2].send(t, http.MethodPost, "/stats/reset?scope=fleet", nil))
	if a.Message == "" || len(a.Replicas) != 3 || *a.Missing != 0 {
		t.Errorf("%+v", a)
	}
	if sum := decode[api.Stats](t, fixtures[0].get(t, "/stats?scope=fleet")); sum.Misses != 0 || sum.TotalRequests != 0 || sum.Database.Queries != 0 {
		t.Errorf("after a reset: %+v", sum)
	}
}

func TestFleetScopeWithoutRedisIsThisReplicaAndSaysSo(t *testing.T) {
	broken := &fleetOf{err: errors.New("dial tcp 10.0.0.7:6379: refused")}
	for name, fleet := range map[string]api.Fleet{"disabled": nil, "down": broken} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &store{}, func(c *api.Config) { c.Fleet = fleet })
			broken.servers = []*api.Server{f.Server}
			f.get(t, "/product/coalesced/1")
			a := f.get(t, "/stats?scope=fleet")
			sum := decode[api.Stats](t, a)
			if a.status != http.StatusOK || sum.Misses != 1 || len(sum.Replicas) != 1 || sum.Note == "" {
				t.Errorf("status %d: %+v", a.status, sum)
			}
			if strings.Contains(a.body, "10.0.0.7") {
				t.Errorf("internals leak: %s", a.body)
			}
			if a := decode[api.ResetAnswer](t, f.send(t, http.MethodPost, "/stats/reset?scope=fleet", nil)); len(a.Replicas) != 1 || a.Note == "" {
				t.Errorf("%+v", a)
			}
		})
	}
}

func TestUnknownScopeIs422(t *testing.T) {
	f := start(t, &store{}, nil)
	expectProblem(t, f.get(t, "/stats?scope=galaxy"), http.StatusUnprocessableEntity)
	expectProblem(t, f.send(t, http.MethodPost, "/stats/reset?scope=galaxy", nil), http.StatusUnprocessableEntity)
}

func TestResetWantsTheAdminToken(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.AdminToken = "letmein" })
	f.get(t, "/product/coalesced/1")
	for _, header := range []string{"", "letmein", "Bearer", "Bearer ", "Bearer wrong", "Basic letmein", "Bearer letmein2"} {
		a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Authorization": {header}})
		expectProblem(t, a, http.StatusUnauthorized)
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%q: WWW-Authenticate %q", header, a.header.Get("WWW-Authenticate"))
		}
	}
	if f.Stats().Misses != 1 {
		t.Error("reset without a token")
	}
	a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Authorization": {"bearer letmein"}})
	if a.status != http.StatusOK || decode[api.ResetAnswer](t, a).Message == "" || f.Stats().Misses != 0 {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	if a := f.get(t, "/stats"); a.status != http.StatusOK {
		t.Errorf("reading wants no token: %d", a.status)
	}
}

func TestResetIsRefusedToAnotherSitesPage(t *testing.T) {
	f := start(t, &store{}, nil)
	expectProblem(t, f.send(t, http.MethodPost, "/stats/reset", http.Header{"Sec-Fetch-Site": {"cross-site"}}), http.StatusForbidden)
	if a := f.send(t, http.MethodPost, "/stats/reset", http.Header{"Sec-Fetch-Site": {"same-origin"}}); a.status != http.StatusOK {
		t.Errorf("status %d", a.status)
	}
}

func TestHealth(t *testing.T) {
	for name, c := range map[string]struct {
		ping   error
		redis  api.RedisStatus
		status int
		want   api.Health
	}{
		"all well":        {nil, api.RedisConnected, 200, api.Health{Status: "healthy", Database: "connected", Redis: "connected"}},
		"without Redis":   {nil, api.RedisDisabled, 200, api.Health{Status: "healthy", Database: "connected", Redis: "disabled"}},
		"Redis down":      {nil, api.RedisDegraded, 200, api.Health{Status: "degraded", Database: "connected", Redis: "degraded"}},
		"database down":   {product.ErrUnavailable, api.RedisConnected, 503, api.Health{Status: "unhealthy", Database: "disconnected", Redis: "connected"}},
		"everything gone": {product.ErrUnavailable, api.RedisDegraded, 503, api.Health{Status: "unhealthy", Database: "disconnected", Redis: "degraded"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := start(t, &store{ping: func(context.Context) error { return c.ping }}, func(cfg *api.Config) {
				cfg.Redis = func(context.Context) api.RedisStatus { return c.redis }
			})
			c.want.Mode, c.want.Replica = "local", "test:1"
			a := f.get(t, "/health")
			if got := decode[api.Health](t, a); a.status != c.status || got != c.want {
				t.Errorf("status %d, %+v, want %d, %+v", a.status, got, c.status, c.want)
			}
		})
	}
}

func TestIndexIsJSONForProgramsAndAPageForBrowsers(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.Replica = "<b>&replica" })
	for _, accept := range []string{"", "*/*", "application/json", "application/json, text/html;q=0.5", "garbage;;;"} {
		a := f.send(t, http.MethodGet, "/", http.Header{"Accept": {accept}})
		if got := decode[api.Index](t, a); a.status != http.StatusOK || len(got.Endpoints) < 6 || got.Replica != "<b>&replica" {
			t.Errorf("Accept %q: %d %+v", accept, a.status, got)
		}
	}
	for _, accept := range []string{"text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"} {
		a := f.send(t, http.MethodGet, "/", http.Header{"Accept": {accept}})
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.header.Get("Vary") != "Accept" {
			t.Errorf("Accept %q: %d %v", accept, a.status, a.header)
		}
		if !strings.Contains(a.body, "/product/coalesced/{id}") || strings.Contains(a.body, "<b>&replica") || !strings.Contains(a.body, "&lt;b&gt;&amp;replica") {
			t.Errorf("the page:\n%s", a.body)
		}
		if a.header.Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("policy %q", a.header.Get("Content-Security-Policy"))
		}
	}
}

func TestHEADAnswersAsGETWithoutABody(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, path := range []string{"/", "/health", "/stats", "/livez", "/readyz", "/product/coalesced/1"} {
		if a := f.send(t, http.MethodHead, path, nil); a.status != http.StatusOK || a.body != "" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

func TestRequestIDIsTheClientsUnlessItCouldForgeALog(t *testing.T) {
	log := &buffer{}
	f := start(t, &store{}, func(c *api.Config) {
		c.Logger = slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})})
	})
	given := map[string]bool{}
	for id, kept := range map[string]bool{
		"abc-123": true, strings.Repeat("x", 128): true,
		"": false, "a b": false, "é": false, "a\tb": false, strings.Repeat("x", 129): false,
	} {
		got := f.send(t, http.MethodGet, "/livez", http.Header{"X-Request-Id": {id}}).header.Get("X-Request-Id")
		if (got == id) != kept || len(got) < 7 {
			t.Errorf("%q: got %q", id, got)
		}
		if given[got] {
			t.Errorf("%q is given twice", got)
		}
		given[got] = true
		if !strings.Contains(log.String(), "request_id="+got) {
			t.Errorf("%q is not in the log:\n%s", got, log)
		}
	}
}

func TestRequestsAreLoggedAtDebugOnly(t *testing.T) {
	for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug} {
		log := &buffer{}
		f := start(t, &store{}, func(c *api.Config) {
			c.Logger = slog.New(api.RequestLog{Handler: slog.NewTextHandler(log, &slog.HandlerOptions{Level: level})})
		})
		f.send(t, http.MethodGet, "/product/coalesced/7777", http.Header{"X-Request-Id": {"abc"}, "Authorization": {"Bearer hunter2"}})
		logged := strings.Contains(log.String(), "path=/product/coalesced/7777 status=404") && strings.Contains(log.String(), "request_id=abc")
		if logged != (level == slog.LevelDebug) || strings.Contains(log.String(), "hunter2") {
			t.Errorf("at %v:\n%s", level, log)
		}
	}
}

func TestClientThatLeavesIsNoError(t *testing.T) {
	s := &store{}
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		<-ctx.Done()
		return product.Product{}, ctx.Err()
	}
	log := &buffer{}
	f := start(t, s, func(c *api.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	w := httptest.NewRecorder()
	go func() {
		defer close(done)
		f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/product/coalesced/1", nil).WithContext(ctx))
	}()
	for f.Stats().ActiveCalls != 1 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	cancel()
	<-done
	if w.Body.Len() != 0 {
		t.Errorf("something was written: %s", w.Body)
	}
	if text := log.String(); !strings.Contains(text, "client_gone=true") || strings.Contains(text, "status=") || strings.Contains(text, "level=WARN") {
		t.Errorf("a request that was never answered is logged as\n%s", text)
	}
	if st := f.Stats(); st.Errors != 0 || st.Hits != 0 || st.Misses != 0 || st.ActiveCalls != 0 || st.TotalRequests != 1 {
		t.Errorf("%+v", st)
	}
}

func TestNewWantsItsParts(t *testing.T) {
	for _, c := range []api.Config{
		{},
		{Group: coalesce.Off[product.Product]{}, Mode: "off", Replica: "r"},
		{Group: coalesce.Off[product.Product]{}, Store: &store{}, Replica: "r"},
		{Group: coalesce.Off[product.Product]{}, Store: &store{}, Mode: "off"},
	} {
		if _, err := api.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}
