package main

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestReadinessEndsBeforeTheServerStopsTakingRequests(t *testing.T) {
	r := start(t, "--shutdown-delay=5s")
	r.expect(t, "/readyz", http.StatusOK)
	r.cancel()
	eventually(t, "not ready", func() bool {
		status, _, _ := r.send(t, http.MethodGet, "/readyz")
		return status == http.StatusServiceUnavailable
	})
	r.client.CloseIdleConnections() // so that the next one is new
	r.expect(t, "/product/coalesced/1", http.StatusOK)
	r.expect(t, "/livez", http.StatusOK)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
}

func TestConnectionsOverTheLimitWait(t *testing.T) {
	r := start(t, "--max-connections=2")
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answer := func(conn net.Conn, within time.Duration) error {
		_ = conn.SetReadDeadline(time.Now().Add(within))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	first, second := dial(), dial()
	if err := errors.Join(answer(first, time.Minute), answer(second, time.Minute)); err != nil {
		t.Fatal(err)
	}
	third := dial()
	if err := answer(third, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the third connection: %v", err)
	}
	_ = first.Close()
	if err := answer(third, time.Minute); err != nil {
		t.Errorf("the third connection, after the first was closed: %v", err)
	}
}

func TestProfilesAreServedOnTheirLoopbackAddressAlone(t *testing.T) {
	r := start(t, "--pprof-addr=127.0.0.1:0")
	found := regexp.MustCompile(`address=(http://127\.0\.0\.1:\d+)/debug/pprof/`).FindStringSubmatch(r.log.String())
	if found == nil {
		t.Fatalf("the log does not have the address:\n%s", r.log)
	}
	for _, c := range []struct {
		base, path, host string
		status           int
	}{
		{found[1], "/debug/pprof/goroutine?debug=1", "", http.StatusOK},
		{found[1], "/debug/pprof/", "localhost:1", http.StatusOK},
		{found[1], "/debug/pprof/goroutine", "evil.example:6060", http.StatusForbidden},
		{found[1], "/debug/pprof/cmdline", "", http.StatusNotFound}, // has passwords
		{found[1], "/product/normal/1", "", http.StatusNotFound},
		{r.url, "/debug/pprof/", "", http.StatusNotFound},
		{start(t).url, "/debug/pprof/", "", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.base+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		resp, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s%s as %q: status %d, want %d", c.base, c.path, c.host, resp.StatusCode, c.status)
		}
	}
}

func TestProfilesAreRefusedOnAnotherAddress(t *testing.T) {
	p, err := startProfiles(t.Context(), "0.0.0.0:0", slog.New(slog.DiscardHandler))
	if err == nil {
		_ = p.close()
		t.Error("profiles are served to everybody")
	}
}

// lines returns the lines of the log with a message.
func (r *running) lines(msg string) []string {
	var found []string
	for line := range strings.Lines(r.log.String()) {
		if strings.Contains(line, msg) {
			found = append(found, line)
		}
	}
	return found
}

var (
	flightIs  = regexp.MustCompile(` flight=\S{22}(\s|$)`)
	requestIs = regexp.MustCompile(` request_id=[0-9a-f]{32}\s`)
)

// expectLine fails the test unless there is one line with a message, and it
// says which replica, key, flight and request it is about.
func (r *running) expectLine(t *testing.T, msg string) {
	t.Helper()
	lines := r.lines(msg)
	if len(lines) != 1 {
		t.Errorf("%d lines say %q:\n%s", len(lines), msg, r.log)
		return
	}
	if line := lines[0]; strings.Count(line, " replica=") != 1 || !strings.Contains(line, `key="\"product:`) || !flightIs.MatchString(line) || !requestIs.MatchString(line) {
		t.Errorf("%s", line)
	}
}

func TestALostLeaseAndATakeoverAreLoggedOnce(t *testing.T) {
	redis := redisrig.Start(t)
	shared := []string{"--redis-url", redis.URL(), "--lease-ttl=1s", "--redis-timeout=1s", "--query-delay=4s"}
	leader, follower := start(t, append(shared, "--replica-id=first")...), start(t, append(shared, "--replica-id=second")...)
	var all sync.WaitGroup
	ask := func(r *running, product string) {
		for range 5 {
			all.Go(func() { r.expect(t, "/product/coalesced/"+product, http.StatusOK) })
		}
		eventually(t, "in flight", func() bool { return get[api.Stats](t, r, "/stats").Tiers.Local.Waiting >= 5 })
	}
	ask(leader, "1")
	eventually(t, "led", func() bool {
		return redis.Client().Exists(t.Context(), "fleetcall:product:{product:1}:lease").Val() == 1
	})
	redis.Client().Del(t.Context(), "fleetcall:product:{product:1}:lease")
	// The leader of the other is gone.
	redis.Client().Set(t.Context(), "fleetcall:product:{product:2}:lease", "0a-flight-of-22-letters0000 1 0 1000 - gone\n", time.Second)
	ask(follower, "2")
	all.Wait()
	leader.expectLine(t, "lease lost")
	follower.expectLine(t, "took over")
	for _, r := range []*running{leader, follower} {
		for line := range strings.Lines(r.log.String()) {
			if strings.Count(line, " replica=") != 1 {
				t.Errorf("which replica? %s", line)
			}
		}
	}
}

func TestFallbacksAreLoggedOnceForAllCalls(t *testing.T) {
	redis := redisrig.Start(t)
	r := start(t, "--redis-url", redis.URL())
	redis.Kill()
	for range 20 {
		r.expect(t, "/product/coalesced/1", http.StatusOK)
	}
	if st := get[api.Stats](t, r, "/stats"); st.Tiers.Distributed.Fallbacks != 20 {
		t.Errorf("%+v", st.Tiers.Distributed)
	}
	r.expectLine(t, "queries run without the lease")
}

func TestFallbacksAreNewsAgainAfterAPause(t *testing.T) {
	var log output
	f := &fallbackLog{log: slog.New(slog.NewTextHandler(&log, nil)), runs: "queries run"}
	now := time.Now()
	hostile := distributed.Run{Role: coalesce.Fallback, Cause: "timeout", Key: "a\nlevel=ERROR " + strings.Repeat("x", 100), Flight: "f"}
	for _, c := range []struct {
		after time.Duration
		lines int
	}{{0, 1}, {time.Second, 1}, {fallbackPause - 1, 1}, {fallbackPause - 1, 1}, {fallbackPause, 2}} {
		now = now.Add(c.after)
		f.note(t.Context(), hostile, now)
		if n := strings.Count(log.String(), "\n"); n != c.lines {
			t.Errorf("%d lines, want %d:\n%s", n, c.lines, log.String())
		}
	}
	if strings.Contains(log.String(), "\nlevel") || strings.Contains(log.String(), strings.Repeat("x", 65)) {
		t.Errorf("the key is not escaped and shortened:\n%s", log.String())
	}
}

func TestEachCauseOfFallbacksHasAStretchOfItsOwn(t *testing.T) {
	var log output
	f := &fallbackLog{log: slog.New(slog.NewTextHandler(&log, nil)), runs: "queries run"}
	now := time.Now()
	said := func(cause string) bool {
		before := strings.Count(log.String(), "\n")
		f.note(t.Context(), distributed.Run{Role: coalesce.Fallback, Cause: cause, Key: "k", Flight: "f"}, now)
		return strings.Count(log.String(), "\n") > before
	}
	for second, want := range []map[string]bool{
		0:  {"too large": true},
		5:  {"too large": false},
		10: {"too large": false, "connection": true}, // Redis is gone; its server is down
		11: {"too large": false, "down": false, "timeout": true},
		15: {"too large": false, "connection": false},
		24: {"too large": false, "down": false}, // the last failure was 9 s ago
		40: {"down": true},                      // taken down by what was no query
		41: {"down": false, "connection": true},
	} {
		for _, cause := range slices.Sorted(maps.Keys(want)) {
			if got := said(cause); got != want[cause] {
				t.Errorf("second %d: %s is logged: %v, want %v", second, cause, got, want[cause])
			}
		}
		now = now.Add(time.Second)
	}
}

func TestTheLogSaysWhatRedisRefused(t *testing.T) {
	for refusal, change := range map[string][]any{
		"NOREPLICAS Not enough good replicas to write": {"CONFIG", "SET", "min-replicas-to-write", "1"},
		"READONLY You can't write against a read only": {"REPLICAOF", "127.0.0.1", "1"},
	} {
		redis := redisrig.Start(t)
		r := start(t, "--redis-url", redis.URL())
		if err := redis.Client().Do(t.Context(), change...).Err(); err != nil {
			t.Fatal(err)
		}
		if role := r.expect(t, "/product/coalesced/1", http.StatusOK).Get("X-Coalesce-Role"); role != "fallback" {
			t.Errorf("%s: the role is %s", refusal, role)
		}
		eventually(t, "logged", func() bool { return strings.Contains(r.log.String(), refusal) })
	}
}
