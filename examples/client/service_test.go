package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/internal/together"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// paid is an API whose calls end when the test lets them.
type paid struct {
	*httptest.Server
	called  chan string // of each call, its token and query
	release chan struct{}
}

func newPaid(t *testing.T) *paid {
	t.Helper()
	p := &paid{called: make(chan string, 100), release: make(chan struct{})}
	next := api(slog.New(slog.DiscardHandler), 0)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.called <- r.Header.Get("Authorization") + " " + r.URL.RawQuery
		select {
		case <-p.release:
		case <-r.Context().Done():
		}
		if r.FormValue("from") == "XXX" {
			http.Error(w, "no such currency", http.StatusNotFound)
			return
		}
		next.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// replica is one that runs.
type replica struct {
	*service
	url string
}

func start(t *testing.T, redis *redisrig.Server, apiURL string, opts ...distributed.Option) *replica {
	t.Helper()
	s, err := newService(redis.Client(), apiURL, slog.New(slog.DiscardHandler), opts...)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, listener, time.Minute) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &replica{s, "http://" + listener.Addr().String()}
}

// convert returns an answer in a line: status, role, body.
func (r *replica) convert(amount int, from string) string {
	response, err := http.Get(fmt.Sprintf("%s/convert?amount=%d&from=%s&to=USD", r.url, amount, from))
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s %s", response.StatusCode, response.Header.Get("X-Coalesce-Role"), strings.TrimSpace(string(text)))
}

func gather(t *testing.T, n int, replicas []*replica, following *together.Following, from string) chan string {
	t.Helper()
	answers := make(chan string, n*len(replicas))
	var stats []func() distributed.Stats
	for _, r := range replicas {
		stats = append(stats, r.answers.Stats)
		for range n {
			go func() { answers <- r.convert(10, from) }()
		}
	}
	following.Wait(t, n, stats...)
	return answers
}

func TestAllReplicasMakeOneCallOfTheAPI(t *testing.T) {
	redis, p, following := redisrig.Start(t), newPaid(t), new(together.Following)
	replicas := []*replica{start(t, redis, p.URL, following.Options()...), start(t, redis, p.URL, following.Options()...)}
	answers := gather(t, 10, replicas, following, "EUR")
	close(p.release)
	roles := map[string]int{}
	for range cap(answers) {
		var status, role, body string
		if _, err := fmt.Sscan(<-answers, &status, &role, &body); err != nil || status != "200" || body != `{"amount":12.5}` {
			t.Errorf("got %s %s %s, %v", status, role, body, err)
		}
		roles[role]++
	}
	if roles["leader"] != 1 || roles["remote-follower"] != 1 || roles["local-follower"] != 18 {
		t.Errorf("roles: %v", roles)
	}
	if call := <-p.called; call != "Bearer paid-for from=EUR&to=USD" || len(p.called) != 0 {
		t.Errorf("the API was called with %s, and %d times more", call, len(p.called))
	}
}

func TestAnErrorOfTheAPIIsAskedForOnce(t *testing.T) {
	redis, p, following := redisrig.Start(t), newPaid(t), new(together.Following)
	replicas := []*replica{start(t, redis, p.URL, following.Options()...), start(t, redis, p.URL, following.Options()...)}
	answers := gather(t, 2, replicas, following, "XXX")
	close(p.release)
	for range cap(answers) {
		if answer := <-answers; !strings.HasPrefix(answer, "502 ") || !strings.HasSuffix(answer, "there is no rate now") {
			t.Errorf("got %s", answer)
		}
	}
	if len(p.called) != 1 {
		t.Errorf("%d calls of the API, want 1", len(p.called))
	}
}

func TestTheAPIIsAskedWithoutRedis(t *testing.T) {
	redis, p := redisrig.Start(t), newPaid(t)
	close(p.release)
	r := start(t, redis, p.URL)
	redis.Kill()
	if answer := r.convert(10, "EUR"); !strings.HasPrefix(answer, "200 ") || !strings.HasSuffix(answer, `{"amount":12.5}`) {
		t.Errorf("got %s", answer)
	}
}
