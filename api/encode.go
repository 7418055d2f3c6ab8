package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/internal/product"
)

// encoder writes a ProductResponse as encoding/json would. It keeps the JSON of the
// product that it encoded last, because after a burst the same product is written a
// thousand times in a row.
type encoder struct {
	last atomic.Pointer[encodedProduct]
}

type encodedProduct struct {
	product product.Product
	json    []byte
}

// encode returns a as JSON in a slice of its own. It writes numbers without an
// exponent, as encoding/json does for numbers from 1e-6 to 1e21.
func (e *encoder) encode(a ProductResponse) ([]byte, error) {
	last := e.last.Load()
	if last == nil || last.product != a.Product {
		encoded, err := json.Marshal(a.Product)
		if err != nil {
			return nil, fmt.Errorf("fleetcall: encoding a product: %w", err)
		}
		last = &encodedProduct{a.Product, encoded}
		e.last.Store(last)
	}
	b := make([]byte, 0, len(last.json)+128)
	b = append(b, `{"query_time_ms":`...)
	b = strconv.AppendFloat(b, a.QueryTimeMS, 'f', -1, 64)
	b = append(b, `,"timestamp":`...)
	b = strconv.AppendFloat(b, a.Timestamp, 'f', -1, 64)
	b = append(b, `,"product":`...)
	b = append(b, last.json...)
	b = append(b, `,"endpoint_type":"`...)
	b = append(b, a.EndpointType...) // normal or coalesced, which need no escaping
	return append(b, "\"}\n"...), nil
}
