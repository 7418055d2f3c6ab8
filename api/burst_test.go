package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// postBurst sends a body to /burst.
func (f *fixture) postBurst(t *testing.T, body string, header http.Header) response {
	t.Helper()
	withType := http.Header{"Content-Type": {"application/json"}}
	maps.Copy(withType, header)
	return f.sendBody(t, http.MethodPost, "/burst", withType, body)
}

// sendEveryBurst provokes every documented response of /burst.
func sendEveryBurst(t *testing.T) {
	t.Helper()
	const right = `{"product":1,"requests":3}`
	f := start(t, &store{}, nil)
	if a := f.postBurst(t, right, nil); a.status != http.StatusOK {
		t.Errorf("status %d: %s", a.status, a.body)
	}
	f.postBurst(t, `{}`, nil)
	f.postBurst(t, right, http.Header{"Sec-Fetch-Site": {"cross-site"}})
	start(t, &store{}, func(c *api.Config) { c.AdminToken = "letmein" }).postBurst(t, right, nil)
	start(t, &store{}, func(c *api.Config) { c.Fleet = &fakeFleet{err: errors.New("broken")} }).postBurst(t, right, nil)
	duringBurst(t, func(f *fixture) { f.postBurst(t, right, nil) })
}

// duringBurst calls then while a burst is running.
func duringBurst(t *testing.T, then func(*fixture)) {
	t.Helper()
	running, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	f := start(t, &store{query: func(context.Context, int32) (product.Product, error) {
		once.Do(func() { close(running) })
		<-release
		return product.Catalogue()[0], nil
	}}, nil)
	var under sync.WaitGroup
	under.Go(func() {
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/burst", strings.NewReader(`{"product":1,"requests":2}`)))
		if w.Code != http.StatusOK {
			t.Errorf("the burst under way: %d %s", w.Code, w.Body)
		}
	})
	<-running
	then(f)
	close(release)
	under.Wait()
}

func TestAReplicaTakesPartInOneBurstAtATime(t *testing.T) {
	duringBurst(t, func(f *fixture) {
		expectProblem(t, f.postBurst(t, `{"product":1,"requests":1}`, nil), http.StatusConflict)
	})
}

func TestOfTwoBurstsAtOnceTheOneThatFindsEverybodyBusyIsRefused(t *testing.T) {
	release := make(chan struct{})
	var running sync.WaitGroup
	running.Add(3)
	fleet := &concurrentFleet{}
	all := threeReplicas(t, fleet, &store{query: func(context.Context, int32) (product.Product, error) {
		running.Done()
		<-release
		return product.Catalogue()[0], nil
	}})
	order := func(f *fixture) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/burst", strings.NewReader(`{"product":1,"requests":30}`)))
		return w
	}
	var first sync.WaitGroup
	var called atomic.Bool
	fleet.present = func() {
		if called.Swap(true) {
			return
		}
		// The first burst asks all replicas after the second has called the roll and
		// before it sends its plan.
		first.Go(func() {
			if w := order(all[1]); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "busy") {
				t.Errorf("the first: %d %s", w.Code, w.Body)
			}
		})
		running.Wait()
	}
	second := order(all[0])
	expectProblem(t, response{second.Code, second.Header(), second.Body.String()}, http.StatusConflict)
	close(release)
	first.Wait()
}

func TestBadRequestsForABurstAreRefused(t *testing.T) {
	f := start(t, failing(errors.New("must not be asked")), nil)
	for _, body := range []string{
		``, `x`, `null`, `[]`, `{}`, `{"product":1}`, `{"requests":1}`, `{"product":0,"requests":1}`, `{"product":-1,"requests":1}`,
		`{"product":1,"requests":0}`, `{"product":1,"requests":1001}`, `{"product":1,"requests":1.5}`, `{"product":"1","requests":1}`,
		`{"product":2147483648,"requests":1}`, `{"product":1,"requests":1}{}`, `{"product":1,"requests":1} x`, `{"product":1,"requests":1,"url":"x"}`,
	} {
		if a := f.postBurst(t, body, nil); a.status != http.StatusUnprocessableEntity {
			t.Errorf("%s: status %d", body, a.status)
		}
	}
	if n := f.Stats().TotalRequests; n != 0 {
		t.Errorf("%d requests were made", n)
	}
}

func TestABurstWantsTheAdminToken(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.AdminToken = "letmein" })
	for token, status := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer letmein": 200} {
		header := http.Header{}
		if token != "" {
			header.Set("Authorization", token)
		}
		if a := f.postBurst(t, `{"product":1,"requests":1}`, header); a.status != status {
			t.Errorf("%q: status %d, want %d", token, a.status, status)
		}
	}
}

// concurrentFleet asks all its servers at the same moment, as a roll call over Redis
// does.
type concurrentFleet struct {
	fakeFleet
	deaf     map[int]bool // replicas that do not answer bursts
	frozen   map[int]bool // replicas that answer nothing at all
	expected atomic.Int64 // number of answers that the last burst waited for
	present  func()       // if not nil, called after each roll call
}

func (f *concurrentFleet) Ask(ctx context.Context, question string, expected int) ([][]byte, int, error) {
	answers := make([][]byte, len(f.servers))
	var all sync.WaitGroup
	isBurst := strings.HasPrefix(question, "order")
	if isBurst {
		f.expected.Store(int64(expected))
	}
	for i, s := range f.servers {
		if f.frozen[i] || f.deaf[i] && isBurst {
			continue
		}
		all.Go(func() { answers[i], _ = s.Answer(ctx, question) })
	}
	all.Wait()
	if !isBurst && f.present != nil {
		f.present()
	}
	var got [][]byte
	for _, a := range answers {
		if a != nil {
			got = append(got, a)
		}
	}
	if expected == 0 {
		expected = len(f.servers)
	}
	return got, expected - len(got), f.err
}

// threeReplicas starts three replicas of one fleet, each with a local tier of its own.
func threeReplicas(t *testing.T, fleet *concurrentFleet, s *store) []*fixture {
	t.Helper()
	var all []*fixture
	for _, name := range []string{"a", "b", "c"} {
		f := start(t, s, func(c *api.Config) { c.Replica, c.Fleet = name, fleet })
		fleet.servers = append(fleet.servers, f.Server)
		all = append(all, f)
	}
	return all
}

// slow returns a store whose queries wait until so many requests wait for them on the
// replicas of a fleet.
func slow(fleet *concurrentFleet, requests int64) *store {
	s := &store{}
	var all atomic.Bool // wait, or did, as one of the queries has seen
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		s.Sent(ctx)
		for !all.Load() && ctx.Err() == nil {
			waiting := int64(0)
			for _, server := range fleet.servers {
				waiting += server.Stats().Tiers.Local.Waiting
			}
			if waiting == requests {
				all.Store(true)
			}
			time.Sleep(time.Millisecond) // no event announces it
		}
		return product.Catalogue()[0], ctx.Err()
	}
	return s
}

func TestABurstIsSplitOverTheFleetAndSaysWhatBecameOfEachRequest(t *testing.T) {
	fleet := &concurrentFleet{}
	s := slow(fleet, 100)
	all := threeReplicas(t, fleet, s)
	a := all[1].postBurst(t, `{"product":1,"requests":100}`, nil)
	got := decode[api.BurstResponse](t, a)
	if got.Requests != 100 || got.Flights != 3 || got.Queries != 3 || got.Prevented != 97 || got.Failed != 0 || got.Unfinished != 0 ||
		got.Roles["leader"] != 3 || got.Roles["local-follower"] != 97 || got.Product != 1 || got.Note != "" {
		t.Errorf("%s", a.body)
	}
	shares := map[string]int{}
	for _, share := range got.Replicas {
		shares[share.Replica] = share.Requests
		if share.State != "ran" || len(share.Calls) != share.Requests || share.Flights != 1 || share.Queries != 1 {
			t.Errorf("%+v", share)
		}
		for _, call := range share.Calls {
			if call.Status != http.StatusOK || call.MS <= 0 || call.MS > 25_000 || call.StartMS < 0 {
				t.Errorf("%s: %+v", share.Replica, call)
			}
		}
	}
	if len(shares) != 3 || shares["a"] != 34 || shares["b"]+shares["c"] != 66 || shares["b"] != 33 {
		t.Errorf("shares %v", shares)
	}
	// The burst's requests count like any others.
	sum := decode[api.Stats](t, all[0].get(t, "/stats?scope=fleet"))
	if sum.TotalRequests != 100 || sum.Misses != 3 || sum.Hits != 97 || sum.Database.Queries != 3*3 { // each of the three replicas reports the queries of the one store
		t.Errorf("/stats says %+v", sum)
	}
}

func TestFewerRequestsThanReplicas(t *testing.T) {
	fleet := &concurrentFleet{}
	all := threeReplicas(t, fleet, slow(fleet, 2))
	got := decode[api.BurstResponse](t, all[0].postBurst(t, `{"product":1,"requests":2}`, nil))
	if got.Requests != 2 || got.Queries != 2 || len(got.Replicas) != 3 || got.Replicas[2].Requests != 0 || len(got.Replicas[2].Calls) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestABurstSaysWhoDidNotAnswer(t *testing.T) {
	fleet := &concurrentFleet{deaf: map[int]bool{2: true}}
	all := threeReplicas(t, fleet, slow(fleet, 20))
	got := decode[api.BurstResponse](t, all[0].postBurst(t, `{"product":1,"requests":30}`, nil))
	if got.Requests != 20 || got.Replicas[2].State != "silent" || got.Replicas[2].Requests != 10 || got.Note == "" {
		t.Errorf("%+v", got)
	}
}

func TestABurstIsSplitOverTheReplicasThatAnsweredTheRollCall(t *testing.T) {
	fleet := &concurrentFleet{frozen: map[int]bool{1: true}}
	all := threeReplicas(t, fleet, slow(fleet, 30))
	got := decode[api.BurstResponse](t, all[0].postBurst(t, `{"product":1,"requests":30}`, nil))
	if got.Requests != 30 || len(got.Replicas) != 2 || got.Replicas[0].Requests != 15 || got.Replicas[1].Replica != "c" || got.Note == "" {
		t.Errorf("%+v", got)
	}
	if n := fleet.expected.Load(); n != 2 {
		t.Errorf("%d answers were waited for", n)
	}
}

func TestABurstWithoutRedisIsThisReplicasAlone(t *testing.T) {
	fleet := &concurrentFleet{}
	fleet.err = errors.New("no Redis at 10.0.0.7")
	f := start(t, &store{}, func(c *api.Config) { c.Fleet = fleet })
	fleet.servers = []*api.Server{f.Server}
	a := f.postBurst(t, `{"product":1,"requests":5}`, nil)
	got := decode[api.BurstResponse](t, a)
	if got.Requests != 5 || len(got.Replicas) != 1 || got.Note == "" || strings.Contains(a.body, "10.0.0.7") {
		t.Errorf("%s", a.body)
	}
}

func TestErrorsAndUnknownProductsOfABurstAreCounted(t *testing.T) {
	got := decode[api.BurstResponse](t, start(t, failing(product.ErrBusy), nil).postBurst(t, `{"product":1,"requests":4}`, nil))
	if got.Failed != 4 || got.Prevented != 0 || got.Replicas[0].Calls[0].Status != http.StatusServiceUnavailable {
		t.Errorf("%+v", got)
	}
	got = decode[api.BurstResponse](t, start(t, &store{}, nil).postBurst(t, `{"product":2000,"requests":1}`, nil))
	if got.Failed != 0 || got.Queries != 1 || got.Replicas[0].Calls[0].Status != http.StatusNotFound {
		t.Errorf("%+v", got)
	}
}

func TestABurstEndsWithItsClient(t *testing.T) {
	running := make(chan struct{})
	var once sync.Once
	s := &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
		once.Do(func() { close(running) })
		<-ctx.Done()
		return product.Product{}, ctx.Err()
	}}
	f := start(t, s, nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/burst", strings.NewReader(`{"product":1,"requests":50}`))
		f.Handler().ServeHTTP(httptest.NewRecorder(), r)
	}()
	<-running
	cancel()
	<-done
	if st := f.Stats(); st.ActiveCalls != 0 || st.TotalRequests != 50 {
		t.Errorf("%+v", st)
	}
}

func TestAPlanOfAnotherReplicaIsBounded(t *testing.T) {
	s := &store{query: func(context.Context, int32) (product.Product, error) { return product.Product{}, nil }}
	server, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: s, Mode: "off", Replica: "r"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := server.Answer(t.Context(), "roll-call")
	if err != nil {
		t.Fatal(err)
	}
	var me struct{ Instance string }
	if err := json.Unmarshal(raw, &me); err != nil {
		t.Fatal(err)
	}
	for requests, want := range map[string]int{"1000000000": 1000, "-5": 0, "0": 0, "3": 3} {
		raw, err := server.Answer(t.Context(), ordered(t, "order of "+requests, `burst {"id":"x","product":1,"shares":{"`+me.Instance+`":`+requests+`}}`))
		if err != nil {
			t.Fatal(err)
		}
		if share := decode[api.BurstShare](t, response{body: string(raw)}); len(share.Calls) != want {
			t.Errorf("%s: %d requests, want %d", requests, len(share.Calls), want)
		}
	}
	if raw, err := server.Answer(t.Context(), ordered(t, "another's", `burst {"id":"x","product":1,"shares":{"another":3}}`)); raw != nil || err != nil {
		t.Errorf("a plan of others is answered with %q, %v: the asker would count it as an expected answer", raw, err)
	}
	for _, garbage := range []string{"burst ", "burst {", "burst []", `burst {"shares":7}`} {
		if _, err := server.Answer(t.Context(), ordered(t, garbage, garbage)); err == nil {
			t.Errorf("%q is answered", garbage)
		}
	}
}
