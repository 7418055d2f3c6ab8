package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

// startProxy starts the server that tells about a proxy.
func startProxy(t *testing.T, ping func(context.Context) error) (*fixture, *api.Upstream) {
	t.Helper()
	upstream := api.NewUpstream("http://127.0.0.1:8001", ping)
	return start(t, nil, func(c *api.Config) { c.Group, c.Store, c.Upstream = nil, nil, upstream }), upstream
}

func reachable(context.Context) error { return nil }

func TestAServerHasEitherProductsOrAnUpstream(t *testing.T) {
	upstream := api.NewUpstream("", reachable)
	if _, err := api.New(api.Config{Upstream: upstream, Store: &store{}, Mode: "off", Replica: "r"}); err == nil {
		t.Error("both were accepted")
	}
	if _, err := api.New(api.Config{Upstream: upstream, Mode: "off", Replica: "r"}); err != nil {
		t.Error(err)
	}
}

func TestAProxysServerHasTheEndpointsOfOperationAlone(t *testing.T) {
	f, _ := startProxy(t, reachable)
	for _, path := range []string{"/", "/health", "/livez", "/readyz", "/stats", "/stats?scope=fleet", "/docs", "/openapi.json", "/assets/page.js"} {
		if a := f.get(t, path); a.status != http.StatusOK {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	for _, e := range decode[api.Index](t, f.get(t, "/")).Endpoints {
		if strings.HasPrefix(e.Path, "/product") || e.Path == "/burst" {
			t.Errorf("%s is listed", e.Path)
		}
	}
	for _, path := range []string{"/product/coalesced/1", "/product/normal/1", "/products?ids=1"} {
		if resp, err := http.Get(f.url + path); err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %v, %v", path, resp, err)
		} else {
			_ = resp.Body.Close()
		}
	}
	http.DefaultClient.CloseIdleConnections()
	down, _ := startProxy(t, func(context.Context) error { return errors.New("refused") })
	a := down.get(t, "/health")
	if h := decode[api.Health](t, a); a.status != http.StatusServiceUnavailable || h.Status != "unhealthy" || h.Upstream != "disconnected" || h.Database != "" {
		t.Errorf("%d %+v", a.status, h)
	}
}

func TestAProxysExchangesAreCounted(t *testing.T) {
	f, u := startProxy(t, reachable)
	exchange := func(e api.Exchange) { u.Begin()(e) }
	u.Asking()("")
	exchange(api.Exchange{Key: "GET a/1", Role: coalesce.Leader, Asked: true, Took: time.Millisecond})
	exchange(api.Exchange{Key: "GET a/1", Role: coalesce.LocalFollower, Took: time.Millisecond})
	exchange(api.Exchange{Key: "GET a/1", Role: coalesce.RemoteFollower, Took: time.Millisecond})
	u.Asking()("")
	exchange(api.Exchange{Key: "POST a/1", Reason: "method", Asked: true, Took: time.Millisecond})
	u.Asking()("unreachable")
	exchange(api.Exchange{Key: "GET a/2", Role: coalesce.Leader, Asked: true, Failed: true})
	exchange(api.Exchange{Key: "GET a/2", Role: coalesce.LocalFollower, Failed: true})
	exchange(api.Exchange{Key: "GET a/3", Role: coalesce.LocalFollower, Failed: true, Left: true})
	u.Cut("cut")
	answered := u.Asking()
	end := u.Begin()

	st := decode[api.Stats](t, f.get(t, "/stats"))
	if st.TotalRequests != 6 || st.Misses != 2 || st.Hits != 2 || st.Errors != 2 || st.ActiveCalls != 1 || st.QueriesPrevented != 2 || st.HitRate != "50.0%" {
		t.Errorf("%+v", st)
	}
	up := st.Upstream
	if up.Address != "http://127.0.0.1:8001" || up.Requests != 4 || up.Waiting != 1 || up.Errors != 2 || up.ErrorsBy["unreachable"] != 1 || up.ErrorsBy["cut"] != 1 || up.Alone != 1 || up.AloneBy["method"] != 1 {
		t.Errorf("%+v", up)
	}
	if body := f.get(t, "/stats").body; strings.Contains(body, `"database"`) {
		t.Errorf("a proxy has a database: %s", body)
	}
	sum := decode[api.Stats](t, f.get(t, "/stats?scope=fleet"))
	if sum.Upstream == nil || sum.Upstream.Requests != 4 || sum.Upstream.AloneBy["method"] != 1 || sum.Upstream.Address != "" {
		t.Errorf("%+v", sum.Upstream)
	}

	raw, err := f.Answer(t.Context(), "live")
	if err != nil {
		t.Fatal(err)
	}
	var live api.ReplicaSnapshot
	if err := json.Unmarshal(raw, &live); err != nil {
		t.Fatal(err)
	}
	if len(live.HotKeys) == 0 || live.HotKeys[0].Key != "GET a/1" || live.Latency["normal"] == nil || live.Latency["leader"] == nil {
		t.Errorf("%+v", live)
	}

	f.send(t, http.MethodPost, "/stats/reset", nil)
	end(api.Exchange{Key: "GET a/1", Role: coalesce.Leader, Asked: true})
	answered("timeout")
	st = decode[api.Stats](t, f.get(t, "/stats"))
	if st.TotalRequests != 1 || st.Misses != 1 || st.ActiveCalls != 0 || st.Upstream.Requests != 0 || st.Upstream.Errors != 1 || len(st.Upstream.ErrorsBy) != 1 || len(st.Upstream.AloneBy) != 0 {
		t.Errorf("after the reset: %+v, %+v", st, st.Upstream)
	}
	if totals := u.Totals(); totals.Requests != 4 || totals.Errors != 3 {
		t.Errorf("the totals fell: %+v", totals)
	}
}

// A replica with products that plans a burst finds a proxy of its fleet in the roll call.
func TestAProxyHasNoShareInABurst(t *testing.T) {
	proxy, _ := startProxy(t, reachable)
	fleet := &fakeFleet{}
	f := start(t, &store{}, func(c *api.Config) { c.Fleet = fleet })
	fleet.servers = []*api.Server{f.Server, proxy.Server}
	a := f.sendBody(t, http.MethodPost, "/burst", http.Header{"Content-Type": {"application/json"}}, `{"product": 1, "requests": 10}`)
	if burst := decode[api.BurstResponse](t, a); burst.Requests != 10 || len(burst.Replicas) != 1 {
		t.Errorf("%+v", burst)
	}
}

func theProxysPageIsLive(t *testing.T, b *browserrig.Browser) {
	f, u := startProxy(t, reachable)
	u.Asking()("")
	u.Begin()(api.Exchange{Key: "GET shop.example/a", Role: coalesce.Leader, Asked: true})
	p := open(t, b, f, browserrig.View{})
	browserrig.WaitFor(t, p, `document.querySelector('[data-total=queries]').textContent === '1'`)
	// A key is hot only for as long as it is asked for.
	done := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(100 * time.Millisecond):
				u.Begin()(api.Exchange{Key: "GET shop.example/a", Role: coalesce.Leader, Asked: true})
			}
		}
	})
	defer asking.Wait()
	defer close(done)
	browserrig.WaitFor(t, p, `document.querySelector('#hot-table').textContent.includes('GET shop.example/a')`)
	for what, is := range map[string]string{
		"a form for bursts": `document.querySelector('#burst-form') !== null`,
		"a database":        `document.querySelector('#totals').textContent.includes('database')`,
	} {
		if has, err := browserrig.Eval[bool](p, is); err != nil || has {
			t.Errorf("the page has %s: %v", what, err)
		}
	}
}
