package distributed_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
)

// TestAFunctionsContextKeepsNoResultAlive has functions that keep their context,
// as for work that goes on after them.
func TestAFunctionsContextKeepsNoResultAlive(t *testing.T) {
	type large = [1 << 16]byte
	for name, late := range map[string]bool{"in time": false, "after the flight timeout": true} {
		t.Run(name, func(t *testing.T) {
			f := newFleet[*large](t, 1, distributed.WithFlightTimeout(300*time.Millisecond))
			var kept context.Context
			made := make(chan weak.Pointer[large], 1)
			_, _, err := f.groups[0].Do(t.Context(), "k", func(ctx context.Context) (*large, error) {
				kept = context.WithoutCancel(ctx)
				if late {
					<-ctx.Done()
					time.Sleep(100 * time.Millisecond) // its callers have returned
				}
				result := new(large)
				made <- weak.Make(result)
				return result, nil
			})
			if errors.Is(err, coalesce.ErrFlightTimeout) != late {
				t.Fatal(err)
			}
			result := <-made
			eventually(t, "the result is let go", func() bool {
				runtime.GC()
				return result.Value() == nil
			})
			runtime.KeepAlive(kept)
		})
	}
}
