package coalescehttp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// twoReplicas starts two replicas of a handler behind a Middleware.
func twoReplicas(t *testing.T, h http.HandlerFunc, opts ...coalescehttp.Option) (*fleet, [2]string) {
	t.Helper()
	f := newFleet(2)
	var urls [2]string
	for i, group := range f.groups {
		urls[i] = quiet(t, coalescehttp.Middleware(group, opts...)(h)) + "/page"
	}
	return f, urls
}

// ask asks for the same as all others, who ask whatever replica.
func ask(t *testing.T, client *http.Client, url string) <-chan answer {
	return get(t.Context(), client, url, "Host", "same")
}

// lead has one request lead, and a second follow on the other replica.
func lead(t *testing.T, f *fleet, client *http.Client, urls [2]string, g *gate) (leader, follower <-chan answer) {
	t.Helper()
	leader = ask(t, client, urls[0])
	eventually(t, "the first leads", func() bool { return g.inside.Load() == 1 })
	follower = ask(t, client, urls[1])
	eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
	return leader, follower
}

func TestTheLeadersClientReadsWhileTheHandlerWrites(t *testing.T) {
	first, second := strings.Repeat("a", 10_000), strings.Repeat("b", 10_000)
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, first)
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, second)
	})
	client := newClient(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, urls[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "same"
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 4<<10)); err != nil {
		t.Fatal(err)
	}
	follower := ask(t, client, urls[1])
	eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
	g.open()
	if a := <-follower; a.body != first+second || a.role() != "remote-follower" {
		t.Errorf("the follower has %d bytes as %q, %v", len(a.body), a.role(), a.err)
	}
	rest, err := io.ReadAll(resp.Body)
	if err != nil || 4<<10+len(rest) != len(first)+len(second) || resp.Header.Get(coalescehttp.RoleHeader) != "leader" {
		t.Errorf("the leader has %d bytes more, %v", len(rest), err)
	}
}

func TestALeadersClientThatLeavesHurtsNobody(t *testing.T) {
	g, left := newGate(), make(chan struct{})
	f := newFleet(2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("a", 10_000))
		if err := g.pass(r.Context()); err != nil {
			t.Errorf("the handler's context ended: %v", err)
		}
		_, _ = io.WriteString(w, "end")
	})
	outer := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			stop := context.AfterFunc(r.Context(), func() { close(left) })
			next.ServeHTTP(w, r)
			stop()
		})
	}
	urls := [2]string{
		quiet(t, outer(coalescehttp.Middleware(f.groups[0])(handler))) + "/page",
		quiet(t, coalescehttp.Middleware(f.groups[1])(handler)) + "/page",
	}
	client := newClient(t)
	ctx, leave := context.WithCancel(t.Context())
	leader := get(ctx, client, urls[0], "Host", "same")
	eventually(t, "the first leads", func() bool { return g.inside.Load() == 1 })
	follower := ask(t, client, urls[1])
	eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
	leave()
	if a := <-leader; a.err == nil {
		t.Errorf("the leader's client has %+v", a)
	}
	<-left
	g.open()
	if a := <-follower; len(a.body) != 10_003 || a.status != http.StatusOK {
		t.Errorf("the follower has %d, %d bytes, %v", a.status, len(a.body), a.err)
	}
}

func TestAHandlerForWhichNobodyWaitsAnyMoreIsTold(t *testing.T) {
	g, told := newGate(), make(chan error, 1)
	_, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) { told <- g.pass(r.Context()) })
	ctx, leave := context.WithCancel(t.Context())
	leader := get(ctx, newClient(t), urls[0])
	eventually(t, "it leads", func() bool { return g.inside.Load() == 1 })
	leave()
	<-leader
	if err := <-told; !errors.Is(err, context.Canceled) {
		t.Errorf("its context ended with %v", err)
	}
}

func TestASlowLeadersClientHoldsNobodyBack(t *testing.T) {
	const size = 8 << 20 // more than what a connection holds
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		for range size >> 10 {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<10))
		}
	}, coalescehttp.WithBodyLimit(size), coalescehttp.WithBodyTimeout(time.Hour))
	conn, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(urls[0], "http://"), "/page"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /page HTTP/1.1\r\nHost: same\r\n\r\n") // and reads nothing
	eventually(t, "it leads", func() bool { return g.inside.Load() == 1 })
	follower := get(t.Context(), newClient(t), urls[1], "Host", "same", "User-Agent", "")
	eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
	g.open()
	if a := <-follower; len(a.body) != size || a.role() != "remote-follower" {
		t.Errorf("the follower has %d bytes as %q, %v", len(a.body), a.role(), a.err)
	}
}

func TestATimeoutHandlerAroundTimesOutItsOwnClientAlone(t *testing.T) {
	f, g := newFleet(2), newGate()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, "page")
	})
	urls := [2]string{
		quiet(t, http.TimeoutHandler(coalescehttp.Middleware(f.groups[0])(handler), time.Second, "late")) + "/page",
		quiet(t, coalescehttp.Middleware(f.groups[1])(handler)) + "/page",
	}
	leader, follower := lead(t, f, newClient(t), urls, g)
	if a := <-leader; a.status != http.StatusServiceUnavailable || a.body != "late" {
		t.Errorf("the leader has %+v", a)
	}
	g.open()
	if a := <-follower; a.body != "page" || a.status != http.StatusOK {
		t.Errorf("the follower has %+v", a)
	}
}

func TestATimeoutHandlerInsideIsAnAnswerLikeAnyOther(t *testing.T) {
	f, g := newFleet(2), newGate()
	handler := http.TimeoutHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), time.Second, "late")
	begun := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		handler.ServeHTTP(w, r)
	})
	var urls [2]string
	for i, group := range f.groups {
		urls[i] = quiet(t, coalescehttp.Middleware(group)(begun)) + "/page"
	}
	leader, follower := lead(t, f, newClient(t), urls, g)
	g.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.status != http.StatusServiceUnavailable || a.body != "late" {
			t.Errorf("%+v", a)
		}
	}
}

func TestOuterHandlersSeeThePatternThatMatched(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/{id}", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.PathValue("id")) })
	r := httptest.NewRequest(http.MethodGet, "/page/7", nil)
	w := httptest.NewRecorder()
	coalescehttp.Middleware(newFleet(1).groups[0])(mux).ServeHTTP(w, r)
	if r.Pattern != "GET /page/{id}" || w.Body.String() != "7" {
		t.Errorf("the pattern is %q, the body %q", r.Pattern, w.Body)
	}
}

func TestAnObserverIsToldOnceOfEachRequest(t *testing.T) {
	decisions := make(chan coalescehttp.Decision, 10)
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		if r.URL.RawQuery == "private" {
			w.Header().Set("Cache-Control", "private")
		}
		_, _ = io.WriteString(w, "page")
	}, coalescehttp.WithObserver(func(_ *http.Request, d coalescehttp.Decision) { decisions <- d }))
	client := newClient(t)
	leader, follower := lead(t, f, client, urls, g)
	g.open()
	<-leader
	<-follower
	seen := map[string]int{}
	take := func(n int) {
		t.Helper()
		for range n {
			d := <-decisions
			if (d.Flight == "") != (d.Role == "alone") {
				t.Errorf("%+v", d)
			}
			seen[strings.TrimSpace(d.Role+" "+string(d.Reason))]++
		}
		if len(decisions) > 0 {
			t.Errorf("there is another: %+v", <-decisions)
		}
	}
	take(2)
	for range 2 {
		<-ask(t, client, urls[0]+"?private")
	}
	<-request(t.Context(), client, http.MethodPost, urls[0])
	take(3)
	for _, want := range []string{"leader", "remote-follower", "alone private", "alone remembered", "alone method"} {
		if seen[want] != 1 {
			t.Errorf("%q: %d, of %v", want, seen[want], seen)
		}
	}
}
