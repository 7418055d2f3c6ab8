package sqlite_test

import (
	"database/sql"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
	"github.com/fleetcall/fleetcall/internal/rig/storerig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var poolConfig = product.PoolConfig{Min: 2, Max: 4, Wait: time.Minute}

func open(t *testing.T, path string, config product.PoolConfig) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), path, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestAFileIsAStore(t *testing.T) {
	storerig.Exercise(t, func(t *testing.T) storerig.Database {
		path := filepath.Join(t.TempDir(), "with space & 100%?.db")
		return storerig.Database{
			Open: func(config product.PoolConfig) storerig.Store { return open(t, path, config) },
			Exec: func(statement string) {
				name := (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()
				db, err := sql.Open("sqlite", name)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = db.Close() }()
				if _, err := db.ExecContext(t.Context(), statement); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func TestADatabaseInMemoryHasTheCatalogueAndItsConnections(t *testing.T) {
	s := open(t, "", poolConfig)
	if st := s.Stats(); st != (product.Stats{Idle: 2, Max: 4}) {
		t.Errorf("after opening: %+v", st)
	}
	if p, err := s.Product(t.Context(), 1000); err != nil || p != product.Catalogue()[999] {
		t.Errorf("product 1000: %+v, %v", p, err)
	}
}

func TestTwoStoresInMemoryShareNothing(t *testing.T) {
	a, b := open(t, "", poolConfig), open(t, "", poolConfig)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Product(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

func TestQueriesWaitForTheConnectionsThatOthersHold(t *testing.T) {
	const delay = 50 * time.Millisecond
	s := open(t, "", product.PoolConfig{Min: 1, Max: 2, Wait: time.Minute, Delay: delay})
	start := time.Now()
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if _, err := s.Product(t.Context(), 1); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if took := time.Since(start); took < 3*delay {
		t.Errorf("6 queries over 2 connections took %v, less than %v", took, 3*delay)
	}
}

func TestManyReplicasOpenOneNewFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shared.db")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := sqlite.Open(t.Context(), path, poolConfig)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = s.Close() }()
			if p, err := s.Product(t.Context(), 1000); err != nil || p.ID != 1000 {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
	all.Wait()
}

func TestFileThatCannotBeOpenedIsAnErrorThatSaysSo(t *testing.T) {
	_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory.db"), poolConfig)
	if err == nil || !strings.Contains(err.Error(), "embedded database") {
		t.Errorf("got %v", err)
	}
}
