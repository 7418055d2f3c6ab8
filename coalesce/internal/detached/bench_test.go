package detached

import (
	"context"
	"testing"
)

type key struct{}

var sink any // keeps the owners off the stack, where no flight is

// BenchmarkContext makes a context that lives on when its first one ends, and ends it: by
// this package, as a part of its owner, and by package context. Nobody asks for Done.
func BenchmarkContext(b *testing.B) {
	first, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
	defer cancel()
	b.Run("detached.Context", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			owner := new(struct {
				Context
				rest [64]byte // of a flight, which the context is a part of
			})
			sink = owner
			owner.First = first
			owner.End(context.Canceled)
		}
	})
	b.Run("context.WithCancel", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			owner := new(struct {
				context.Context
				end  context.CancelFunc
				rest [64]byte
			})
			sink = owner
			owner.Context, owner.end = context.WithCancel(context.WithoutCancel(first))
			owner.end()
		}
	})
}
