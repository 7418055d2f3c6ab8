package load_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/loopback"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunCountsTheResponses(t *testing.T) {
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := n.Add(1)
		w.Header().Set("X-Replica", fmt.Sprintf("r%d", i%2))
		w.Header().Set("X-Coalesce-Role", "leader")
		if i%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	var answered atomic.Int64
	r, err := load.Run(t.Context(), load.Config{URLs: []string{server.URL}, Requests: 100, Concurrency: 7, Answered: func() { answered.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 100 || r.OK != 90 || r.Failed != 10 || answered.Load() != 100 {
		t.Errorf("%d requests, %d ok, %d failed, %d reported", r.Requests, r.OK, r.Failed, answered.Load())
	}
	if r.Statuses[200] != 90 || r.Statuses[503] != 10 || r.Replicas["r0"] != 50 || r.Roles["leader"] != 100 || r.Errors["status 503 Service Unavailable"] != 10 {
		t.Errorf("%+v", r)
	}
	if r.PerSecond() <= 0 || r.Latency.P50 <= 0 || r.Latency.P50 > r.Latency.P99 || r.Latency.P99 > r.Latency.Max {
		t.Errorf("%v, %+v", r.PerSecond(), r.Latency)
	}
	inBars, inSlices := 0, 0
	for _, b := range r.Histogram {
		inBars += b.Count
	}
	for _, s := range r.Timeline {
		inSlices += s.OK + s.Failed
	}
	if inBars != 100 || inSlices != 100 {
		t.Errorf("%d answers in the histogram, %d requests in the timeline", inBars, inSlices)
	}
	var decoded map[string]any
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &decoded); err != nil || decoded["ok"] != 90.0 {
		t.Errorf("%s: %v", text, err)
	}
}

func TestRunKeepsExactlyTheGivenConcurrency(t *testing.T) {
	const concurrency = 20
	var now, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == concurrency {
			once.Do(func() { close(full) })
		}
		<-full
	}))
	defer server.Close()
	r, err := load.Run(t.Context(), load.Config{URLs: []string{server.URL}, Requests: 100, Concurrency: concurrency})
	if err != nil || r.OK != 100 || most.Load() != concurrency {
		t.Errorf("%v, %d ok, %d at once", err, r.OK, most.Load())
	}
}

func TestRunAsksItsURLsInTurn(t *testing.T) {
	var mu sync.Mutex
	asked := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[r.URL.Path]++
	}))
	defer server.Close()
	_, err := load.Run(t.Context(), load.Config{URLs: []string{server.URL + "/a", server.URL + "/b", server.URL + "/c"}, Requests: 30, Concurrency: 5})
	if err != nil || asked["/a"] != 10 || asked["/b"] != 10 || asked["/c"] != 10 {
		t.Errorf("%v, %v", err, asked)
	}
}

func TestAResponseThatFailsTheCheckCountsAsFailed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "two") }))
	defer server.Close()
	r, err := load.Run(t.Context(), load.Config{URLs: []string{server.URL}, Requests: 3, Concurrency: 1, Check: func(_ string, _ http.Header, body []byte) error {
		if string(body) != "one" {
			return errors.New("not one")
		}
		return nil
	}})
	if err != nil || r.Failed != 3 || r.Statuses[200] != 3 || r.Errors["wrong answer: not one"] != 3 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestLabelsOfTheServerAreSafeToPrint(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nX-Replica: a\u009b31mred\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = conn.Close()
	}))
	defer server.Close()
	r, err := load.Run(t.Context(), load.Config{URLs: []string{server.URL}, Requests: 1, Concurrency: 1})
	if err != nil || r.Replicas["a\uFFFD31mred"] != 1 {
		t.Errorf("%v, %v, %v", err, r.Replicas, r.Errors)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r, err := load.Run(ctx, load.Config{URLs: []string{server.URL}, Requests: 100, Concurrency: 10})
	if !errors.Is(err, context.DeadlineExceeded) || r.Failed != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestASilentServerIsNamedByItsCause(t *testing.T) {
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("http://127.0.0.1:%d", port)
	r, err := load.Run(t.Context(), load.Config{URLs: []string{url}, Requests: 3, Concurrency: 2})
	if err != nil || r.Errors["dial: connection refused"] != 3 || len(r.Errors) != 1 {
		t.Errorf("%v, %+v", err, r)
	}
	if err := (load.Target{Base: url}).Alive(t.Context()); !errors.Is(err, load.ErrNoServer) {
		t.Errorf("%v, want ErrNoServer", err)
	}
}
