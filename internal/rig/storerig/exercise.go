// Package storerig has the tests that every store of products must pass.
package storerig

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/product"
)

// Store is a store of products, as the packages postgres and sqlite have one.
type Store interface {
	Product(ctx context.Context, id int32) (product.Product, error)
	Products(ctx context.Context, ids []int32) ([]product.Product, error)
	Ping(ctx context.Context) error
	Check(ctx context.Context) error
	Stats() product.Stats
	ResetStats()
	Seed(ctx context.Context, progress func(done, total int)) error
}

// Database is a database with the catalogue, for one test.
type Database struct {
	// Open opens a store that is closed when the test ends.
	Open func(config product.PoolConfig) Store
	// Exec runs a statement without the store.
	Exec func(statement string)
}

// Exercise runs the tests. start returns a new database for each of them.
func Exercise(t *testing.T, start func(t *testing.T) Database) {
	for name, test := range map[string]func(*testing.T, Database){
		"every product is as in the catalogue and counted": everyProductIsAsInTheCatalogue,
		"an unknown product is not found and no error":     anUnknownProductIsNotFound,
		"many products are one query":                      manyProductsAreOneQuery,
		"a full pool is busy after the wait":               aFullPoolIsBusyAfterTheWait,
		"a database without the table refuses":             aDatabaseWithoutTheTableRefuses,
		"seeding repairs its rows and keeps others":        seedingRepairsItsRowsAndKeepsOthers,
	} {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

func everyProductIsAsInTheCatalogue(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 2, Max: 4, Wait: time.Minute})
	if st := s.Stats(); st.Queries != 0 || st.Errors != 0 || st.Max != 4 {
		t.Errorf("after opening: %+v", st)
	}
	sent := 0
	ctx := product.OnQuery(t.Context(), func() { sent++ })
	for _, want := range product.Catalogue() {
		got, err := s.Product(ctx, want.ID)
		if err != nil || got != want {
			t.Fatalf("product %d: got %+v, %v", want.ID, got, err)
		}
	}
	if st := s.Stats(); st.Queries != 1000 || st.Errors != 0 || sent != 1000 {
		t.Errorf("after 1000 queries the hook was called %d times: %+v", sent, st)
	}
	s.ResetStats()
	if st := s.Stats(); st.Queries != 0 {
		t.Errorf("after a reset: %+v", st)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func anUnknownProductIsNotFound(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 1, Max: 1, Wait: time.Minute})
	if _, err := s.Product(t.Context(), 1001); !errors.Is(err, product.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if st := s.Stats(); st.Queries != 1 || st.Errors != 0 {
		t.Errorf("%+v", st)
	}
}

func manyProductsAreOneQuery(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 1, Max: 1, Wait: time.Minute})
	sent := 0
	ctx := product.OnQuery(t.Context(), func() { sent++ })
	ids := []int32{1001, 7, 2147483647}
	for _, p := range product.Catalogue()[100:300] {
		ids = append(ids, p.ID)
	}
	got, err := s.Products(ctx, ids)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(got, func(a, b product.Product) int { return int(a.ID - b.ID) })
	want := append([]product.Product{product.Catalogue()[6]}, product.Catalogue()[100:300]...)
	if !slices.Equal(got, want) {
		t.Errorf("got %d products, want %d", len(got), len(want))
	}
	if st := s.Stats(); st.Queries != 1 || st.Errors != 0 || sent != 1 {
		t.Errorf("the hook was called %d times: %+v", sent, st)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Products(gone, ids); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller that has gone: %v", err)
	}
	db.Exec(`ALTER TABLE products RENAME TO others`)
	if _, err := s.Products(t.Context(), ids); err == nil || !strings.Contains(err.Error(), "203 products") {
		t.Errorf("without the table: %v", err)
	}
	if st := s.Stats(); st.Errors != 1 {
		t.Errorf("after a query that failed: %+v", st)
	}
}

func aFullPoolIsBusyAfterTheWait(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 1, Max: 1, Wait: time.Second, Delay: time.Hour})
	if err := s.Check(t.Context()); err != nil { // which makes the connection, however long that takes
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	holder := make(chan error, 1)
	go func() {
		_, err := s.Product(ctx, 1)
		holder <- err
	}()
	for s.Stats().InUse == 0 && len(holder) == 0 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	if _, err := s.Product(t.Context(), 1); !errors.Is(err, product.ErrBusy) || errors.Is(err, product.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("the pool is busy, and the database counts as unavailable: %v", err)
	}
	cancel()
	if err := <-holder; !errors.Is(err, context.Canceled) {
		t.Errorf("the holder of the connection got %v", err)
	}
	for s.Stats().InUse != 0 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	if st := s.Stats(); st.Queries != 0 || st.Errors != 1 {
		t.Errorf("no query was sent, and one call got no connection: %+v", st)
	}
}

func seedingRepairsItsRowsAndKeepsOthers(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 1, Max: 2, Wait: time.Minute})
	db.Exec(`UPDATE products SET name = 'changed' WHERE id = 7`)
	db.Exec(`DELETE FROM products WHERE id = 8`)
	db.Exec(`INSERT INTO products VALUES (5000, 'mine', 1, 'kept')`)
	last := 0
	if err := s.Seed(t.Context(), func(done, total int) {
		if done <= last || total != 1000 {
			t.Errorf("progress %d of %d after %d", done, total, last)
		}
		last = done
	}); err != nil {
		t.Fatal(err)
	}
	if last != 1000 {
		t.Errorf("progress ended at %d", last)
	}
	for _, want := range product.Catalogue()[6:8] {
		if p, err := s.Product(t.Context(), want.ID); err != nil || p != want {
			t.Errorf("product %d: %+v, %v", want.ID, p, err)
		}
	}
	if p, err := s.Product(t.Context(), 5000); err != nil || p.Name != "mine" {
		t.Errorf("product 5000: %+v, %v", p, err)
	}
}

func aDatabaseWithoutTheTableRefuses(t *testing.T, db Database) {
	s := db.Open(product.PoolConfig{Min: 1, Max: 2, Wait: time.Minute})
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("a database with the catalogue: %v", err)
	}
	if st := s.Stats(); st.Queries != 0 || st.Errors != 0 {
		t.Errorf("the check counts as a query: %+v", st)
	}
	db.Exec(`DROP TABLE products`)
	if err := s.Check(t.Context()); !errors.Is(err, product.ErrRefused) || !strings.Contains(err.Error(), "products") {
		t.Errorf("without the table: %v", err)
	}
	db.Exec(`CREATE TABLE products (id integer PRIMARY KEY, name text NOT NULL)`)
	if err := s.Check(t.Context()); !errors.Is(err, product.ErrRefused) || !strings.Contains(err.Error(), "price") {
		t.Errorf("with a table of the same name that has other columns: %v", err)
	}
}
