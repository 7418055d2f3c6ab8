package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var pool = product.PoolConfig{Min: 2, Max: 4, Wait: time.Minute}

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

func TestMemoryAndFileHaveTheCatalogue(t *testing.T) {
	for name, path := range map[string]string{
		"memory": "",
		"file":   filepath.Join(t.TempDir(), "with space & 100%?.db"),
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, path, pool)
			if st := s.Stats(); st != (product.Stats{Idle: 2, Max: 4}) {
				t.Errorf("after opening: %+v", st)
			}
			for _, want := range product.Catalogue() {
				got, err := s.Product(t.Context(), want.ID)
				if err != nil || got != want {
					t.Fatalf("product %d: got %+v, %v", want.ID, got, err)
				}
			}
			if st := s.Stats(); st.Queries != 1000 || st.Errors != 0 {
				t.Errorf("after 1000 queries: %+v", st)
			}
			s.ResetStats()
			if st := s.Stats(); st.Queries != 0 {
				t.Errorf("after a reset: %+v", st)
			}
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTwoStoresInMemoryShareNothing(t *testing.T) {
	a, b := open(t, "", pool), open(t, "", pool)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Product(t.Context(), 1); err != nil {
		t.Error(err)
	}
}

func TestUnknownProductIsNotFoundAndNoError(t *testing.T) {
	s := open(t, "", pool)
	if _, err := s.Product(t.Context(), 1001); !errors.Is(err, product.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if st := s.Stats(); st.Queries != 1 || st.Errors != 0 {
		t.Errorf("%+v", st)
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

func TestFullPoolIsBusyAfterTheWait(t *testing.T) {
	s := open(t, "", product.PoolConfig{Min: 1, Max: 1, Wait: 20 * time.Millisecond, Delay: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	var holder sync.WaitGroup
	holder.Go(func() {
		if _, err := s.Product(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("the holder got %v", err)
		}
	})
	for s.Stats().InUse == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := s.Product(t.Context(), 1); !errors.Is(err, product.ErrBusy) {
		t.Errorf("got %v", err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("a busy pool is no dead database: %v", err)
	}
	cancel()
	holder.Wait()
	if st := s.Stats(); st.Queries != 0 || st.Errors != 1 || st.InUse != 0 {
		t.Errorf("no query was sent, one wait failed: %+v", st)
	}
}

func TestManyReplicasOpenOneNewFileAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "shared.db")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s, err := sqlite.Open(t.Context(), path, pool)
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

func TestSeedRepairsItsRowsAndKeepsOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "products.db")
	s := open(t, path, pool)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.Exec(`UPDATE products SET name = 'changed' WHERE id = 7;
		INSERT INTO products VALUES (5000, 'mine', 1, 'kept')`); err != nil {
		t.Fatal(err)
	}
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
	if p, err := s.Product(t.Context(), 7); err != nil || p != product.Catalogue()[6] {
		t.Errorf("product 7: %+v, %v", p, err)
	}
	if p, err := s.Product(t.Context(), 5000); err != nil || p.Name != "mine" {
		t.Errorf("product 5000: %+v, %v", p, err)
	}
}

func TestFileThatCannotBeOpenedIsAnErrorThatSaysSo(t *testing.T) {
	_, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory.db"), pool)
	if err == nil || !strings.Contains(err.Error(), "embedded database") {
		t.Errorf("got %v", err)
	}
}
