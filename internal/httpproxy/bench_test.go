package httpproxy

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// nothing counts nothing.
type nothing struct{}

func (nothing) Begin(*http.Request) func(Exchange) { return func(Exchange) {} }
func (nothing) Asking() func(string)               { return func(string) {} }
func (nothing) Cut(string)                         {}

// answering is an upstream without a network.
type answering struct{}

func (answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{
		StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"text/plain"}, "Content-Length": {"5"}}, ContentLength: 5, Body: io.NopCloser(strings.NewReader("hello")),
	}, nil
}

// BenchmarkLoneRequest has what a proxy adds to a request that nobody shares, beside a bare
// httputil.ReverseProxy.
func BenchmarkLoneRequest(b *testing.B) {
	upstream := &url.URL{Scheme: "http", Host: "127.0.0.1:8001"}
	handlers := map[string]http.Handler{
		"bare": &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(upstream); r.SetXForwarded() }, Transport: answering{}},
	}
	for name, group := range map[string]coalescehttp.Group{
		"off": coalesce.Off[*coalescehttp.Answer]{}, "local": local.Tier(&local.Group[string, *coalescehttp.Answer]{}),
	} {
		p, err := New(Config{
			Upstream: upstream, Group: func(time.Duration) (coalescehttp.Group, error) { return group, nil },
			UpstreamTimeout: time.Minute, FlightTimeout: time.Minute, Counts: nothing{}, Logger: slog.New(slog.DiscardHandler),
			Around: func(http.RoundTripper) http.RoundTripper { return answering{} },
		})
		if err != nil {
			b.Fatal(err)
		}
		handlers[name] = p
	}
	for name, handler := range handlers {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			b.Run(name+"/"+method, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r := httptest.NewRequest(method, "/product/1?x=1", nil)
					r.RequestURI = "/product/1?x=1"
					handler.ServeHTTP(httptest.NewRecorder(), r)
				}
			})
		}
	}
}
