package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// rawOrigin starts a server that reads a request of each connection, answers it with text
// that may be no HTTP, and closes the connection.
func rawOrigin(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer func() { _ = conn.Close() }()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			})
		}
	})
	return "http://" + l.Addr().String()
}

// expectProblem sends a GET, and checks that the proxy itself refuses it.
func (p proxying) expectProblem(t *testing.T, path string, status int, problem string) {
	t.Helper()
	got, header, body := p.send(t, http.MethodGet, path)
	var answer api.Problem
	if err := json.Unmarshal(body, &answer); err != nil {
		t.Errorf("%d %.200q: %v", got, body, err)
	}
	if got != status || answer.Status != status || answer.Type != "urn:fleetcall:problem:"+problem || answer.Title == "" || answer.Detail == "" {
		t.Errorf("%d %+v, want %d %s", got, answer, status, problem)
	}
	if header.Get("Content-Type") != "application/problem+json" || header.Get("X-Request-Id") == "" || header.Get("X-Replica") == "" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", header)
	}
}

// unused returns an address where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func TestEachFaultOfAnUpstreamIsAProblemOfItsOwn(t *testing.T) {
	huge := "HTTP/1.1 200 OK\r\nX-Huge: " + strings.Repeat("x", 2<<20) + "\r\n\r\n"
	for name, c := range map[string]struct {
		upstream string
		status   int
		problem  string
	}{
		"down":                   {"http://" + unused(t), http.StatusBadGateway, "upstream-unreachable"},
		"no TLS":                 {strings.Replace(origin(t, echoing), "http:", "https:", 1), http.StatusBadGateway, "upstream-unreachable"},
		"silent":                 {origin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), http.StatusGatewayTimeout, "upstream-timeout"},
		"closes without a word":  {rawOrigin(t, ""), http.StatusBadGateway, "upstream-broken"},
		"closes amid the header": {rawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), http.StatusBadGateway, "upstream-broken"},
		"speaks another tongue":  {rawOrigin(t, "SSH-2.0-OpenSSH_9.6\r\n\r\n"), http.StatusBadGateway, "upstream-garbage"},
		"bad status":             {rawOrigin(t, "HTTP/1.1 abc OK\r\n\r\n"), http.StatusBadGateway, "upstream-garbage"},
		"bad length":             {rawOrigin(t, "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"), http.StatusBadGateway, "upstream-garbage"},
		"a header without end":   {rawOrigin(t, huge), http.StatusBadGateway, "upstream-garbage"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timeout := patience // no busy machine reaches it
			if c.problem == "upstream-timeout" {
				timeout = 300 * time.Millisecond
			}
			p := launchProxy(t, c.upstream, fmt.Sprintf("--upstream-timeout=%v", timeout))
			p.expectProblem(t, "/a", c.status, c.problem)
			kind := strings.TrimPrefix(c.problem, "upstream-")
			st := get[api.Stats](t, p.admin, "/stats")
			if st.Upstream.Errors != 1 || st.Upstream.ErrorsBy[kind] != 1 || st.Errors != 1 || st.Misses != 1 || st.Hits != 0 {
				t.Errorf("%+v, %+v", st, st.Upstream)
			}
			if !strings.Contains(p.log.String(), "type="+c.problem) {
				t.Errorf("the log says:\n%s", p.log)
			}
		})
	}
}

func TestAnUpstreamThatSwitchesProtocolsUnaskedSendsGarbage(t *testing.T) {
	p := launchProxy(t, rawOrigin(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"))
	p.expectProblem(t, "/a", http.StatusBadGateway, "upstream-garbage")
}

func TestAProxyIsReadyOnceItsUpstreamIs(t *testing.T) {
	address := unused(t)
	p := launchProxy(t, "http://"+address)
	if _, _, body := p.admin.send(t, http.MethodGet, "/readyz"); !strings.Contains(string(body), "starting") {
		t.Errorf("/readyz says %s", body)
	}
	status, _, body := p.admin.send(t, http.MethodGet, "/health")
	if status != http.StatusServiceUnavailable || !strings.Contains(string(body), `"upstream":"disconnected"`) || strings.Contains(string(body), "database") {
		t.Errorf("/health says %d %s", status, body)
	}
	p.expectProblem(t, "/", http.StatusBadGateway, "upstream-unreachable")
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.NotFoundHandler(), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	eventually(t, "ready", func() bool {
		status, _, _ := p.admin.send(t, http.MethodGet, "/readyz")
		return status == http.StatusOK
	})
	p.expect(t, "/", http.StatusNotFound)
	if h := get[api.Health](t, p.admin, "/health"); h.Status != "healthy" || h.Upstream != "connected" || h.Database != "" {
		t.Errorf("/health says %+v", h)
	}
	_ = server.Close()
	if status, _, _ := p.admin.send(t, http.MethodGet, "/readyz"); status != http.StatusOK {
		t.Errorf("not ready for an outage of the upstream: %d", status)
	}
}

func TestAnAnswerThatBreaksOffIsCutForItsLeaderAndAProblemForItsFollowers(t *testing.T) {
	release := make(chan struct{})
	p := startProxy(t, origin(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "the first bytes")
		_ = http.NewResponseController(w).Flush()
		<-release
		panic(http.ErrAbortHandler)
	}))
	leader, err := p.client.Get(p.url + "/a")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = leader.Body.Close() }()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		p.expectProblem(t, "/a", http.StatusBadGateway, "upstream-broken")
	}()
	eventually(t, "followed", func() bool { return get[api.Stats](t, p.admin, "/stats").Tiers.Local.Followers == 1 })
	close(release)
	if body, err := io.ReadAll(leader.Body); !errors.Is(err, io.ErrUnexpectedEOF) || string(body) != "the first bytes" {
		t.Errorf("the leader's client got %q, %v", body, err)
	}
	<-followed
	eventually(t, "counted", func() bool { return get[api.Stats](t, p.admin, "/stats").ActiveCalls == 0 })
	if st := get[api.Stats](t, p.admin, "/stats"); st.Upstream.ErrorsBy["cut"] != 1 || st.Upstream.Requests != 1 || st.Errors != 2 {
		t.Errorf("%+v, %+v", st, st.Upstream)
	}
}

func TestAFlightThatTakesTooLongIsATimeoutForAllItsClients(t *testing.T) {
	p := startProxy(t, origin(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }),
		rulesFile(t, "rules:\n- path: /slow\n  flight_timeout: 300ms\n"))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { p.expectProblem(t, "/slow", http.StatusGatewayTimeout, "upstream-timeout") })
	}
	all.Wait()
}

func TestAClientThatLeavesHurtsNobody(t *testing.T) {
	release, left := make(chan struct{}), make(chan struct{}, 1)
	p := startProxy(t, origin(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
			left <- struct{}{}
		}
		_, _ = io.WriteString(w, "the answer")
	}))
	leave := func(path string) (wait func()) {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if resp, err := p.client.Do(r); err == nil {
				_ = resp.Body.Close()
				t.Error("who has left got an answer")
			}
		}()
		return func() {
			cancel()
			<-done
		}
	}
	leader := leave("/a")
	eventually(t, "asked", func() bool { return get[api.Stats](t, p.admin, "/stats").Upstream.Waiting == 1 })
	var follower sync.WaitGroup
	follower.Go(func() {
		if _, header, body := p.send(t, http.MethodGet, "/a"); string(body) != "the answer" || header.Get("X-Coalesce-Role") != "local-follower" {
			t.Errorf("%v %q", header, body)
		}
	})
	eventually(t, "followed", func() bool { return get[api.Stats](t, p.admin, "/stats").Tiers.Local.Followers == 1 })
	leader()
	close(release)
	follower.Wait()

	release = make(chan struct{})
	alone := leave("/b")
	eventually(t, "asked", func() bool { return get[api.Stats](t, p.admin, "/stats").Upstream.Waiting == 1 })
	alone()
	<-left // nobody waits any more: the upstream is told
	eventually(t, "counted", func() bool { return get[api.Stats](t, p.admin, "/stats").ActiveCalls == 0 })
	if st := get[api.Stats](t, p.admin, "/stats"); st.Errors != 0 || st.Upstream.Errors != 0 {
		t.Errorf("%+v, %+v", st, st.Upstream)
	}
}

func TestAProxyWithoutItsRedisStillAnswers(t *testing.T) {
	redis := redisrig.Start(t)
	p := startProxy(t, origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the answer") }),
		append([]string{"--redis-url", redis.URL(), "--flight-timeout=10s"}, impatient...)...)
	if role := p.expect(t, "/a", http.StatusOK).Get("X-Coalesce-Role"); role != "leader" {
		t.Errorf("with Redis: %s", role)
	}
	redis.Stop()
	eventually(t, "a fallback", func() bool { return p.expect(t, "/a", http.StatusOK).Get("X-Coalesce-Role") == "fallback" })
	if h := get[api.Health](t, p.admin, "/health"); h.Status != "degraded" || h.Redis != api.RedisDegraded || h.Upstream != "connected" {
		t.Errorf("/health says %+v", h)
	}
	if !strings.Contains(p.log.String(), "requests are sent without the lease, once on each replica") {
		t.Errorf("the log says:\n%s", p.log)
	}
	redis.Restart()
	eventually(t, "a leader", func() bool { return p.expect(t, "/a", http.StatusOK).Get("X-Coalesce-Role") == "leader" })
}

// A sidecar whose own upstream is gone is no reason to fail the callers of the others.
func TestAnUpstreamThatIsGoneFailsTheClientsOfItsOwnProxyAlone(t *testing.T) {
	redis := redisrig.Start(t)
	release := make(chan struct{})
	dying := origin(t, func(_ http.ResponseWriter, r *http.Request) {
		<-release
		panic(http.ErrAbortHandler) // before there is an answer
	})
	well := origin(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the answer") })
	a := startProxy(t, dying, "--redis-url", redis.URL())
	b := startProxy(t, well, "--redis-url", redis.URL())
	var clients sync.WaitGroup
	ask := func(p proxying) (int, http.Header, string) {
		r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, p.url+"/a", nil)
		if err != nil {
			t.Error(err)
			return 0, nil, ""
		}
		r.Host = "shop.example"
		resp, err := p.client.Do(r)
		if err != nil {
			t.Error(err)
			return 0, nil, ""
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, resp.Header, string(body)
	}
	clients.Go(func() {
		if status, _, body := ask(a); status != http.StatusBadGateway || !strings.Contains(body, "upstream-broken") {
			t.Errorf("a client of the proxy whose upstream is gone got %d %s", status, body)
		}
	})
	eventually(t, "asked", func() bool { return a.joins(t) == 1 })
	clients.Go(func() {
		if status, header, body := ask(b); status != http.StatusOK || body != "the answer" {
			t.Errorf("a client of another proxy got %d %v %s", status, header, body)
		}
	})
	eventually(t, "followed", func() bool { return b.joins(t) == 1 })
	close(release)
	clients.Wait()
}

func TestABodyThatTheClientCutsIsNoFaultOfTheUpstream(t *testing.T) {
	p := startProxy(t, origin(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = fmt.Fprintf(conn, "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "bad-body") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if st := get[api.Stats](t, p.admin, "/stats"); st.Upstream.Errors != 0 {
		t.Errorf("%+v", st.Upstream)
	}
}
