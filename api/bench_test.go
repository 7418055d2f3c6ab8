package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

// discardWriter is a ResponseWriter that drops the body.
type discardWriter struct{ header http.Header }

func (d discardWriter) Header() http.Header         { return d.header }
func (d discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (d discardWriter) WriteHeader(int)             {}

// BenchmarkProduct measures a request without its query, its coalescing and net/http.
func BenchmarkProduct(b *testing.B) {
	p := product.Catalogue()[0]
	one := func(context.Context, int32) (product.Product, error) { return p, nil }
	s, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: &store{query: one}, Mode: "off", Replica: "replica-1"})
	if err != nil {
		b.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/product/coalesced/1", http.NoBody)
	handler := s.Handler()
	b.ReportAllocs()
	for b.Loop() {
		r.Header = http.Header{}
		handler.ServeHTTP(discardWriter{http.Header{}}, r)
	}
}
