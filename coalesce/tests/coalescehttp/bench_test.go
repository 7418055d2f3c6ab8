package coalescehttp_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func localGroup() coalescehttp.Group {
	return local.Tier(new(local.Group[string, *coalescehttp.Answer]))
}

// BenchmarkLoneRequestOfAHandler is what the Middleware costs a request that nobody shares,
// beside the bare handler.
func BenchmarkLoneRequestOfAHandler(b *testing.B) {
	page := make([]byte, 1000)
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) })
	for _, front := range []struct {
		name string
		http.Handler
	}{{"bare", handler}, {"merged", coalescehttp.Middleware(localGroup())(handler)}} {
		b.Run(front.name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest(http.MethodGet, "/page", nil)
			for b.Loop() {
				w := httptest.NewRecorder()
				front.ServeHTTP(w, r.WithContext(b.Context()))
			}
		})
	}
}

// BenchmarkLoneRequestOfAClient is what the Transport costs a request that nobody shares,
// beside its base, over a real connection.
func BenchmarkLoneRequestOfAClient(b *testing.B) {
	page := make([]byte, 1000)
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(page) }))
	base := newClient(b).Transport
	for _, way := range []struct {
		name string
		http.RoundTripper
	}{{"bare", base}, {"merged", coalescehttp.NewTransport(base, localGroup())}} {
		b.Run(way.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, url, nil)
				if err != nil {
					b.Fatal(err)
				}
				resp, err := way.RoundTrip(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		})
	}
}
