package coalescehttp_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// overHTTP2 starts a server and returns its URL, and a client's transport for it.
func overHTTP2(t *testing.T, h http.Handler) (string, *http.Transport) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	transport := s.Client().Transport.(*http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	return s.URL, transport
}

// TestATransportOverHTTP2 has answers that net/http decompresses, and whose trailer the
// caller reads at the end.
func TestATransportOverHTTP2(t *testing.T) {
	g := newGate()
	url, base := overHTTP2(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		if r.URL.Path == "/trailer" {
			_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
			w.Header().Set(http.TrailerPrefix+"X-Sum", "7")
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, strings.Repeat("page ", 1000))
		_ = z.Close()
	}))
	f := newFleet(2)
	client := func(i int) *http.Client {
		return &http.Client{Transport: coalescehttp.NewTransport(base, f.groups[i])}
	}
	one, two := get(t.Context(), client(0), url+"/page"), get(t.Context(), client(1), url+"/page")
	eventually(t, "both wait", func() bool { return f.waiting() == 2 && g.inside.Load() == 1 })
	g.open()
	for _, ch := range []<-chan answer{one, two} {
		if a := <-ch; a.body != strings.Repeat("page ", 1000) || a.role() == "alone" {
			t.Errorf("%d bytes as %q, %v", len(a.body), a.role(), a.err)
		}
	}
	resp, err := client(0).Get(url + "/trailer")
	if err != nil {
		t.Fatal(err)
	}
	if got := whole(t, resp); len(got) != 10_000 || resp.Trailer.Get("X-Sum") != "7" {
		t.Errorf("%d bytes, and the trailer %v", len(got), resp.Trailer)
	}
}

// TestAMiddlewareOverHTTP2 has many streams of one connection share a handler.
func TestAMiddlewareOverHTTP2(t *testing.T) {
	f, g := newFleet(1), newGate()
	url, base := overHTTP2(t, coalescehttp.Middleware(f.groups[0])(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, strings.Repeat("x", 100_000))
	})))
	var answers []<-chan answer
	for range 50 {
		answers = append(answers, get(t.Context(), &http.Client{Transport: base}, url+"/page"))
	}
	eventually(t, "all wait", func() bool { return f.waiting() == len(answers) })
	g.open()
	for _, ch := range answers {
		if a := <-ch; len(a.body) != 100_000 || a.role() == "alone" {
			t.Errorf("%d bytes as %q, %v", len(a.body), a.role(), a.err)
		}
	}
	if n := g.entered.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}
