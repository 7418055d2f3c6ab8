package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/product"
)

func TestManyProductsComeInTheOrderOfTheirIDsAndUnknownOnesAreMissing(t *testing.T) {
	f := start(t, &store{}, nil)
	a := f.get(t, "/products?ids=7,5000,3,7,1,2147483647")
	if a.status != http.StatusOK {
		t.Fatalf("status %d: %s", a.status, a.body)
	}
	got := decode[api.ProductsResponse](t, a)
	all := product.Catalogue()
	if !slices.Equal(got.Products, []product.Product{all[6], all[2], all[0]}) || !slices.Equal(got.Missing, []int32{5000, 2147483647}) || got.EndpointType != "coalesced" {
		t.Errorf("got %+v", got)
	}
	if roles := a.header.Get("X-Coalesce-Roles"); roles != "leader=5" {
		t.Errorf("X-Coalesce-Roles: %q", roles)
	}
	a = f.get(t, "/products?ids=1")
	if !strings.Contains(a.body, `"missing":[]`) {
		t.Errorf("nothing is missing: %s", a.body)
	}
	want := api.BatchStats{Requests: 2, Keys: 6, Queries: 2, QueriedKeys: 6, KeysPerQuery: 3}
	if st := f.Stats(); st.Batches != want || st.Database.Queries != 2 || st.TotalRequests != 0 || st.Misses != 0 {
		t.Errorf("%+v", st)
	}
	f.ResetStats()
	if st := f.Stats(); st.Batches != (api.BatchStats{}) {
		t.Errorf("after a reset: %+v", st.Batches)
	}
	if totals := f.BatchTotals(); totals != want {
		t.Errorf("after a reset, totals: %+v", totals)
	}
}

func TestListOfIDsThatIsNoneIs422AndSaysWhichIDIsBad(t *testing.T) {
	f := start(t, failing(errors.New("must not be asked")), nil)
	for query, want := range map[string]string{
		"":                           "from 1 to 200",
		"?ids=":                      "from 1 to 200",
		"?ids=1&ids=2":               "ids=1,2,3, once",
		"?id=1":                      "from 1 to 200",
		"?ids=" + manyIDs(1, 201):    "from 1 to 200",
		"?ids=1,2,x%22y,0":           `"x\"y" is no product id`,
		"?ids=1,,2":                  `"" is no product id`,
		"?ids=1,2147483648":          `"2147483648" is no product id`,
		"?ids=1,%202":                `" 2" is no product id`,
		"?ids=01":                    `"01" is no product id`,
		"?ids=1,":                    `"" is no product id`,
		"?ids=" + manyZeros(1000):    "…",
		"?ids=1,%ff%fe":              "is no product id",
		"?ids=1%2C2%2C%3Cscript%3E1": "is no product id",
	} {
		a := f.get(t, "/products"+query)
		expectProblem(t, a, http.StatusUnprocessableEntity)
		if p := decode[api.Problem](t, a); !strings.Contains(p.Detail, want) || len(p.Detail) > 300 {
			t.Errorf("%.50s: detail %q, want %q", query, p.Detail, want)
		}
	}
	ok := start(t, &store{}, nil)
	if a := ok.get(t, "/products?ids="+manyIDs(1, 200)); a.status != http.StatusOK {
		t.Errorf("200 ids: status %d", a.status)
	}
}

func manyIDs(from, to int) string {
	var ids []string
	for id := from; id <= to; id++ {
		ids = append(ids, fmt.Sprint(id))
	}
	return strings.Join(ids, ",")
}

func manyZeros(n int) string { return strings.Repeat("0", n) }

func TestErrorOfTheQueryForManyIsTheContractsProblem(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
	}{
		{product.ErrUnavailable, 503}, {product.ErrBusy, 503}, {coalesce.ErrFlightTimeout, 504}, {errors.New("password=hunter2"), 500},
	} {
		f := start(t, failing(c.err), nil)
		a := f.get(t, "/products?ids=1,2")
		expectProblem(t, a, c.status)
		if strings.Contains(a.body, "hunter2") {
			t.Errorf("internals leak: %s", a.body)
		}
		if st := f.Stats().Batches; st != (api.BatchStats{Requests: 1, Keys: 2, Errors: 1}) {
			t.Errorf("%v: %+v", c.err, st)
		}
	}
}

func TestPanicOfTheQueryForManyIs500AndLoggedOnce(t *testing.T) {
	s := &store{}
	s.query = func(context.Context, int32) (product.Product, error) { panic("hunter2") }
	f := start(t, s, nil)
	a := f.get(t, "/products?ids=1,2")
	expectProblem(t, a, http.StatusInternalServerError)
	if log := f.log.String(); strings.Contains(a.body, "hunter2") || strings.Count(log, "a request panicked") != 1 || !strings.Contains(log, "api_test.go") {
		t.Errorf("%s\n%s", a.body, log)
	}
	if a := f.get(t, "/products?ids="+strings.Repeat("1,", 199)+"1"); a.status != http.StatusInternalServerError {
		t.Errorf("the panic of a key that is named 200 times: %d", a.status)
	}
}

// TestManyAndSingleRequestsShareQueries has a batch follow a single request and another
// batch, and a single request follow a batch.
func TestManyAndSingleRequestsShareQueries(t *testing.T) {
	group := &local.Group[string, product.Product]{}
	release := make(chan struct{})
	var mu sync.Mutex
	var queries [][]int32
	s := &store{}
	f := start(t, s, func(c *api.Config) {
		c.Group, c.Tiers = local.Tier(group), nil
		c.Store = &held{store: s, release: release, queried: func(ids []int32) {
			mu.Lock()
			defer mu.Unlock()
			queries = append(queries, ids)
		}}
	})
	answers := map[string]*httptest.ResponseRecorder{}
	var all sync.WaitGroup
	waiting := int64(0)
	for _, c := range []struct {
		path string
		keys int64
	}{{"/product/coalesced/2", 1}, {"/products?ids=1,2,3,5000", 4}, {"/products?ids=3,2,4", 3}, {"/product/coalesced/5000", 1}, {"/product/coalesced/1", 1}} {
		w := httptest.NewRecorder()
		answers[c.path] = w
		all.Go(func() { f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, c.path, nil)) })
		waiting += c.keys
		await(func() bool { return group.Stats().Waiting == waiting })
	}
	close(release)
	all.Wait()
	slices.SortFunc(queries, func(a, b []int32) int { return int(a[0] - b[0]) })
	if fmt.Sprint(queries) != "[[1 3 5000] [2] [4]]" {
		t.Errorf("queries for %v", queries)
	}
	for path, want := range map[string]string{
		"/products?ids=1,2,3,5000": "leader=3, local-follower=1", "/products?ids=3,2,4": "leader=1, local-follower=2",
	} {
		w := answers[path]
		var body api.ProductsResponse
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || w.Code != http.StatusOK || len(body.Products) != 3 {
			t.Errorf("%s: %d %s %v", path, w.Code, w.Body, err)
		}
		if got := w.Header().Get("X-Coalesce-Roles"); got != want {
			t.Errorf("%s: roles %q, want %q", path, got, want)
		}
	}
	for path, status := range map[string]int{"/product/coalesced/2": 200, "/product/coalesced/1": 200, "/product/coalesced/5000": 404} {
		if w := answers[path]; w.Code != status {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	st := f.Stats()
	if st.Batches != (api.BatchStats{Requests: 2, Keys: 7, Queries: 2, QueriedKeys: 4, KeysPerQuery: 2, KeysSaved: 3}) || st.Hits != 2 || st.Misses != 1 {
		t.Errorf("%+v", st)
	}
}

// held is a store whose queries wait for their release.
type held struct {
	*store
	release <-chan struct{}
	queried func(ids []int32)
}

func (h *held) Product(ctx context.Context, id int32) (product.Product, error) {
	h.queried([]int32{id})
	<-h.release
	return h.store.Product(ctx, id)
}

func (h *held) Products(ctx context.Context, ids []int32) ([]product.Product, error) {
	h.queried(ids)
	<-h.release
	return h.store.Products(ctx, ids)
}

// await waits for what no event announces.
func await(until func() bool) {
	for !until() {
		time.Sleep(time.Millisecond) // no event announces it
	}
}
