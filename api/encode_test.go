package api

import (
	"encoding/json"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/internal/product"
)

// The test draws from few products, so that the product that the encoder keeps is often
// asked for again, and also after another one.
func TestProductAnswersAreWhatEncodingJSONWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var e encoder
		products := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) product.Product {
			return product.Product{
				ID:          rapid.Int32().Draw(t, "id"),
				Name:        rapid.String().Draw(t, "name"),
				Price:       float64(rapid.IntRange(0, 1e9).Draw(t, "cents")) / 100,
				Description: rapid.SampledFrom([]string{"", "<b>&\u2028\"", "plain", "\xff\xfe"}).Draw(t, "description"),
			}
		}), 1, 3).Draw(t, "products")
		for range 20 {
			a := ProductResponse{
				QueryTimeMS:  math.Round(rapid.Float64Range(0, 1e9).Draw(t, "ms")*100) / 100,
				Timestamp:    float64(rapid.Int64Range(0, 4e12).Draw(t, "at")) / 1000,
				Product:      rapid.SampledFrom(products).Draw(t, "product"),
				EndpointType: rapid.SampledFrom([]string{"normal", "coalesced"}).Draw(t, "type"),
			}
			want, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.encode(a)
			if err != nil || string(got) != string(want)+"\n" {
				t.Fatalf("%s, %v\nwant %s", got, err, want)
			}
		}
	})
}

func BenchmarkProductAnswer(b *testing.B) {
	a := ProductResponse{QueryTimeMS: 512.34, Timestamp: 1697812345.678, EndpointType: "coalesced", Product: product.Catalogue()[0]}
	b.Run("ours", func(b *testing.B) {
		var e encoder
		b.ReportAllocs()
		for b.Loop() {
			_, _ = e.encode(a)
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = json.Marshal(a)
		}
	})
}
