package coalescehttp_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// step is a thing that a handler does with its ResponseWriter.
type step struct {
	does string
	do   func(w http.ResponseWriter)
}

func (s step) String() string { return s.does }

// anyStep draws what handlers do, the wrong things too.
func anyStep(t *rapid.T) step {
	name := rapid.SampledFrom([]string{"X-A", "X-B", "Vary", "Content-Type", "X-Outer", "Etag", "Cache-Control"})
	value := rapid.SampledFrom([]string{"a", "b", "X-Lang", "text/html", "public"})
	status := rapid.SampledFrom([]int{200, 201, 204, 301, 304, 404, 500, 103})
	text := func(label string) string {
		n := rapid.SampledFrom([]int{0, 1, 100, 511, 512, 513, 2047, 2048, 2049, 5000}).Draw(t, label)
		return strings.Repeat(rapid.SampledFrom([]string{"x", "<html>", "{}", "%PDF-", "\x00\xff"}).Draw(t, "of"), n)[:n]
	}
	switch rapid.IntRange(0, 9).Draw(t, "step") {
	case 0:
		k, v := name.Draw(t, "name"), value.Draw(t, "value")
		return step{"Set " + k + ": " + v, func(w http.ResponseWriter) { w.Header().Set(k, v) }}
	case 1:
		k, v := name.Draw(t, "name"), value.Draw(t, "value")
		return step{"Add " + k + ": " + v, func(w http.ResponseWriter) { w.Header().Add(k, v) }}
	case 2:
		k := name.Draw(t, "name")
		return step{"Del " + k, func(w http.ResponseWriter) { w.Header().Del(k) }}
	case 3:
		k := name.Draw(t, "name")
		return step{"nil " + k, func(w http.ResponseWriter) { w.Header()[k] = nil }}
	case 4:
		s := status.Draw(t, "status")
		return step{fmt.Sprint("WriteHeader ", s), func(w http.ResponseWriter) { w.WriteHeader(s) }}
	case 5:
		s := text("text")
		return step{fmt.Sprint("ReadFrom ", len(s)), func(w http.ResponseWriter) { _, _ = io.Copy(w, strings.NewReader(s)) }}
	case 6:
		s := text("text")
		return step{fmt.Sprint("WriteString ", len(s)), func(w http.ResponseWriter) { _, _ = io.WriteString(w, s) }}
	case 7:
		n := rapid.SampledFrom([]string{"0", "100", "2048", "5000", "-1", "x"}).Draw(t, "length")
		return step{"Content-Length " + n, func(w http.ResponseWriter) { w.Header().Set("Content-Length", n) }}
	default:
		s := text("text")
		return step{fmt.Sprintf("Write %d of %.6q", len(s), s), func(w http.ResponseWriter) { _, _ = w.Write([]byte(s)) }}
	}
}

// script is a handler whose steps change from case to case.
type script struct {
	mu    sync.Mutex
	steps []step
	g     *gate
	what  any // it panics with at the end
}

// ServeHTTP makes script an http.Handler.
func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	steps, g, what := s.steps, s.g, s.what
	s.mu.Unlock()
	_ = g.pass(r.Context())
	for _, step := range steps {
		step.do(w)
	}
	if what != nil {
		panic(what)
	}
}

func (s *script) set(steps []step, what any) *gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps, s.g, s.what = steps, newGate(), what
	return s.g
}

// outer is what stands around the Middleware: it sets fields of its own.
func outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Outer", "outer")
		w.Header().Set("Vary", "X-Outer-Field")
		w.Header().Set("X-Own", r.Header.Get("X-Own"))
		next.ServeHTTP(w, r)
	})
}

func quiet(t testing.TB, h http.Handler) string {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// seen is what a client sees of an answer, without what is each answer's own.
func seen(a answer) string {
	header := maps.Clone(a.header)
	for _, name := range []string{"Date", "X-Own", coalescehttp.RoleHeader, coalescehttp.FlightHeader} {
		delete(header, name)
	}
	names := slices.Sorted(maps.Keys(header))
	var b strings.Builder
	fmt.Fprintf(&b, "%d, cut: %v\n", a.status, a.err != nil)
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %q\n", name, header[name])
	}
	fmt.Fprintf(&b, "%d bytes: %.20q", len(a.body), a.body)
	return b.String()
}

// TestAnyHandlersAnswerIsWhatItWouldBeWithoutTheMiddleware plays random handlers without the
// Middleware, and to a leader and a follower on another replica.
func TestAnyHandlersAnswerIsWhatItWouldBeWithoutTheMiddleware(t *testing.T) {
	f, s := newFleet(2), new(script)
	plain := quiet(t, outer(s))
	var urls []string
	for _, group := range f.groups {
		urls = append(urls, quiet(t, outer(coalescehttp.Middleware(group)(s))))
	}
	client := newClient(t)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.Custom(anyStep), 0, 6).Draw(rt, "steps")
		method := rapid.SampledFrom([]string{http.MethodGet, http.MethodGet, http.MethodHead}).Draw(rt, "method")
		n++
		target := fmt.Sprintf("/%d", n)
		send := func(url, own string) <-chan answer {
			return request(context.Background(), client, method, url+target, "Host", "same", "X-Own", own)
		}
		s.set(steps, nil).open()
		want := <-send(plain, "0")
		g := s.set(steps, nil)
		one := send(urls[0], "1")
		eventually(t, "the first leads", func() bool { return g.inside.Load() == 1 })
		two := send(urls[1], "2")
		eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
		g.open()
		leader, follower := <-one, <-two
		if seen(leader) != seen(want) {
			rt.Fatalf("without the Middleware:\n%s\nto the leader:\n%s", seen(want), seen(leader))
		}
		if want.err == nil && seen(follower) != seen(want) {
			rt.Fatalf("without the Middleware:\n%s\nto the follower:\n%s", seen(want), seen(follower))
		}
		if want.err != nil && follower.err == nil && follower.status != http.StatusInternalServerError {
			rt.Fatalf("of an answer that is cut, the follower gets\n%s", seen(follower))
		}
		for own, a := range map[string]answer{"1": leader, "2": follower} {
			if a.err == nil && a.header.Get("X-Own") != own {
				rt.Fatalf("client %s has X-Own: %s", own, a.header.Get("X-Own"))
			}
		}
	})
}
