package local_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/local"
)

// BenchmarkDoMany is a hundred keys that nobody else wants, for a caller that could leave.
// Its function returns a map that was made before: what is measured is DoMany's.
func BenchmarkDoMany(b *testing.B) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var g local.Group[string, int]
	vals := map[string]int{}
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint("product:", i))
		vals[keys[i]] = i
	}
	fn := func(context.Context, []string) (map[string]int, error) { return vals, nil }
	b.ReportAllocs()
	for b.Loop() {
		if got, err := g.DoMany(ctx, keys, fn); err != nil || len(got) != len(keys) {
			b.Fatal(err, len(got))
		}
	}
}
