package api

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/internal/product"
)

// encoder writes a ProductAnswer as encoding/json would, and keeps the product
// that it encoded last: a herd wants the same one, a thousand times.
type encoder struct {
	last atomic.Pointer[encodedProduct]
}

type encodedProduct struct {
	product product.Product
	json    []byte
}

// answer returns a as JSON, in memory of its own. The numbers must be such as
// json writes without an exponent.
func (e *encoder) answer(a ProductAnswer) ([]byte, error) {
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
	b = append(b, a.EndpointType...) // one of two words
	return append(b, "\"}\n"...), nil
}
