package coalescehttp_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// recoverer keeps what a handler panicked with.
func recoverer(panics chan<- any, stacks chan<- string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if value := recover(); value != nil {
				panics <- value
				stacks <- string(debug.Stack())
				w.WriteHeader(http.StatusTeapot)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func explodes() { panic("boom") }

func TestAPanicReachesEachCallersOuterHandlersInItsProcessAndA500OtherReplicas(t *testing.T) {
	f, g := newFleet(2), newGate()
	panics, stacks := make(chan any, 3), make(chan string, 3)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		explodes()
	})
	var urls [2]string
	for i, group := range f.groups {
		urls[i] = quiet(t, recoverer(panics, stacks, coalescehttp.Middleware(group)(handler))) + "/page"
	}
	client := newClient(t)
	leader := ask(t, client, urls[0])
	eventually(t, "the first leads", func() bool { return g.inside.Load() == 1 })
	local, remote := ask(t, client, urls[0]), ask(t, client, urls[1])
	eventually(t, "the others follow", func() bool { return f.waiting() == 3 })
	g.open()
	for _, ch := range []<-chan answer{leader, local} {
		if a := <-ch; a.status != http.StatusTeapot || <-panics != "boom" {
			t.Errorf("%+v", a)
		}
	}
	if s := <-stacks + <-stacks; !strings.Contains(s, "coalescehttp_test.explodes") {
		t.Errorf("nobody's stack has the function that panicked:\n%s", s)
	}
	a := <-remote
	if a.status != http.StatusInternalServerError || a.header.Get("Content-Type") != "application/problem+json" || strings.Contains(a.body, "boom") {
		t.Errorf("on the other replica: %+v", a)
	}
	if len(panics) > 0 {
		t.Error("the other replica's outer handler saw a panic")
	}
}

func TestAnAbortedHandlerCutsTheConnectionsOfItsProcess(t *testing.T) {
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 10_000))
		_ = g.pass(r.Context())
		panic(http.ErrAbortHandler)
	})
	client := newClient(t)
	leader, follower := lead(t, f, client, urls, g)
	g.open()
	if a := <-leader; a.err == nil {
		t.Errorf("the leader's client has a whole answer: %d bytes", len(a.body))
	}
	if a := <-follower; a.status != http.StatusInternalServerError {
		t.Errorf("the follower has %+v", a)
	}
}

func TestAHandlerThatExitsIsAnErrorForItsFollowers(t *testing.T) {
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		runtime.Goexit()
	})
	client := newClient(t)
	_, follower := lead(t, f, client, urls, g)
	g.open()
	if a := <-follower; a.status != http.StatusInternalServerError {
		t.Errorf("the follower has %+v", a)
	}
}

func TestAWrongStatusPanicsAsInNetHTTP(t *testing.T) {
	group := newFleet(1).groups[0]
	handler := coalescehttp.Middleware(group)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(99) }))
	defer func() {
		if value := recover(); value != "invalid WriteHeader code 99" {
			t.Errorf("it panics with %v", value)
		}
	}()
	handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/page", nil))
	t.Error("it returns")
}
