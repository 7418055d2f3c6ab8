// Package shop is the database of the examples: a few products in memory, and
// queries that take their time.
package shop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Product is a row.
type Product struct {
	ID    string  `json:"id"`
	Name  string  `json:"name"`
	Price float64 `json:"price"`
}

// ErrNoProduct is returned for an id that no product has.
var ErrNoProduct = errors.New("no such product")

// Every replica registers the error under the same name, so that errors.Is finds it
// also in an error that another replica's query returned.
func init() { coalesce.RegisterError("shop.ErrNoProduct", ErrNoProduct) }

// Database is what the examples ask.
type Database interface {
	Product(ctx context.Context, id string) (Product, error)
	SetPrice(ctx context.Context, id string, price float64) error
}

// Memory is a Database whose queries take a while.
type Memory struct {
	delay time.Duration

	mu   sync.Mutex
	rows map[string]Product
}

// NewMemory returns a Database with two products, of the ids 1 and 2.
func NewMemory(delay time.Duration) *Memory {
	return &Memory{delay: delay, rows: map[string]Product{"1": {"1", "Keyboard", 49}, "2": {"2", "Mouse", 19}}}
}

// Product makes Memory a Database.
func (m *Memory) Product(ctx context.Context, id string) (Product, error) {
	select {
	case <-time.After(m.delay):
	case <-ctx.Done():
		return Product{}, ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[id]
	if !ok {
		return Product{}, fmt.Errorf("product %q: %w", id, ErrNoProduct)
	}
	return row, nil
}

// SetPrice makes Memory a Database.
func (m *Memory) SetPrice(_ context.Context, id string, price float64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[id]
	if !ok {
		return fmt.Errorf("product %q: %w", id, ErrNoProduct)
	}
	row.Price = price
	m.rows[id] = row
	return nil
}
