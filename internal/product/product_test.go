package product_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCatalogueHasAThousandPlausibleProductsThatNeverChange(t *testing.T) {
	first, second := product.Catalogue(), product.Catalogue()
	if len(first) != 1000 {
		t.Fatalf("%d products", len(first))
	}
	names := map[string]bool{}
	for i, p := range first {
		if p != second[i] {
			t.Fatalf("product %d differs between two calls: %+v, %+v", i+1, p, second[i])
		}
		if p.ID != int32(i+1) {
			t.Fatalf("product %d has id %d", i+1, p.ID)
		}
		if p.Name == "" || p.Description == "" || names[p.Name] {
			t.Errorf("product %d: empty or repeated: %+v", p.ID, p)
		}
		names[p.Name] = true
		if cents := p.Price * 100; p.Price <= 0 || math.Abs(cents-math.Round(cents)) > 1e-6 {
			t.Errorf("product %d: price %v", p.ID, p.Price)
		}
	}
}

func TestProductOneIsTheOneOfTheContract(t *testing.T) {
	b, err := json.Marshal(product.Catalogue()[0])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":1,"name":"MacBook Pro 16-inch","price":2499.99,"description":"Powerful laptop with M3 Pro chip"}`
	if string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
}

func TestErrorsKeepTheirIdentityAcrossReplicas(t *testing.T) {
	for _, err := range []error{product.ErrNotFound, product.ErrUnavailable, product.ErrBusy} {
		remote := &coalesce.RemoteError{Message: err.Error(), Names: coalesce.ErrorNames(err)}
		if !errors.Is(remote, err) {
			t.Errorf("%v is not recognised on another replica", err)
		}
	}
}

func TestHoldEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if err := product.Hold(t.Context(), 500*time.Millisecond); err != nil || time.Since(start) != 500*time.Millisecond {
			t.Errorf("held %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := product.Hold(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCountersTellTheHookOfEachQuery(t *testing.T) {
	var c product.Counters
	hooked := 0
	c.Sent(product.OnQuery(t.Context(), func() { hooked++ }))
	c.Sent(t.Context())
	c.Failed(true)
	c.Failed(false)
	c.Failed(false)
	if q, e := c.Load(); q != 2 || e != 3 || hooked != 1 {
		t.Errorf("queries %d, errors %d, hooked %d", q, e, hooked)
	}
	c.Reset()
	if q, e := c.Load(); q != 0 || e != 0 {
		t.Errorf("after a reset: queries %d, errors %d", q, e)
	}
	if got := c.Totals(); got != (product.Totals{Queries: 2, Failed: 1, Unsent: 2}) {
		t.Errorf("after a reset: totals %+v", got)
	}
}
