package postgres_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/postgres"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/storerig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var poolConfig = product.PoolConfig{Min: 2, Max: 4, Wait: time.Minute}

func open(t *testing.T, url string, config product.PoolConfig) *postgres.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url, config, nil)
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

func TestEachCallIsOneStatementInTheServersLog(t *testing.T) {
	server := postgresrig.Start(t)
	s := open(t, server.URL(), poolConfig)
	if err := s.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	server.ResetQueries()
	hooked := 0
	ctx := product.OnQuery(t.Context(), func() { hooked++ })
	for _, want := range product.Catalogue()[:50] {
		got, err := s.Product(ctx, want.ID)
		if err != nil || got != want {
			t.Fatalf("product %d: got %+v, %v", want.ID, got, err)
		}
	}
	if _, err := s.Product(ctx, 1001); !errors.Is(err, product.ErrNotFound) {
		t.Errorf("product 1001: %v", err)
	}
	st := s.Stats()
	if n := server.Queries(); n != 51 || hooked != 51 || st.Queries != 51 || st.Errors != 0 {
		t.Errorf("the server logged %d statements, the hook saw %d, the counters say %+v; want 51", n, hooked, st)
	}
	if st.Max != 4 {
		t.Errorf("pool: %+v", st)
	}
}

func TestPostgreSQLIsAStore(t *testing.T) {
	server := postgresrig.Start(t)
	storerig.Exercise(t, func(t *testing.T) storerig.Database {
		exec := func(statement string) {
			conn, err := pgx.Connect(t.Context(), server.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(t.Context()) }()
			if _, err := conn.Exec(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		exec(`DROP TABLE IF EXISTS products`)
		if err := open(t, server.URL(), poolConfig).Seed(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		return storerig.Database{
			Open: func(config product.PoolConfig) storerig.Store { return open(t, server.URL(), config) },
			Exec: exec,
		}
	})
}

func TestTwoMaySeedAtOnce(t *testing.T) {
	s := open(t, postgresrig.Start(t).URL(), poolConfig)
	var both sync.WaitGroup
	for range 2 {
		both.Go(func() {
			if err := s.Seed(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if p, err := s.Product(t.Context(), 1000); err != nil || p != product.Catalogue()[999] {
		t.Errorf("product 1000: %+v, %v", p, err)
	}
}

func TestDatabaseThatIsDownAtStartOrLaterIsUnavailableAndComesBack(t *testing.T) {
	server := postgresrig.Start(t)
	seeder := open(t, server.URL(), poolConfig)
	if err := seeder.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	s := open(t, server.URL(), poolConfig)
	down := func() {
		t.Helper()
		if _, err := s.Product(t.Context(), 1); !errors.Is(err, product.ErrUnavailable) {
			t.Errorf("Product: %v", err)
		}
		if err := s.Ping(t.Context()); !errors.Is(err, product.ErrUnavailable) {
			t.Errorf("Ping: %v", err)
		} else if strings.Contains(err.Error(), "only-for-tests") {
			t.Errorf("the error has the password: %v", err)
		}
	}
	down()
	server.Start()
	if p, err := s.Product(t.Context(), 1); err != nil || p.ID != 1 {
		t.Errorf("after the start: %+v, %v", p, err)
	}
	server.Stop()
	down()
}

func TestAServerThatRefusesIsToldFromOneThatIsDown(t *testing.T) {
	server := postgresrig.Start(t)
	admin := open(t, server.URL(), poolConfig)
	if err := admin.Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), `CREATE ROLE stranger LOGIN PASSWORD 'strange'; CREATE ROLE reader LOGIN PASSWORD 'strange'; GRANT SELECT ON products TO reader`); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ old, new, why string }{
		"a wrong password":                   {"only-for-tests", "hunter2", "password authentication failed"},
		"no such database":                   {"/postgres?", "/nothing?", "does not exist"},
		"a user that may not read the table": {"fleetcall:only-for-tests", "stranger:strange", "permission denied for table products"},
		"a server without TLS":               {"sslmode=disable", "sslmode=require", "TLS"},
		"a user that may read the table":     {"fleetcall:only-for-tests", "reader:strange", ""},
	} {
		s := open(t, strings.Replace(server.URL(), c.old, c.new, 1), poolConfig)
		err := s.Check(t.Context())
		if errors.Is(err, product.ErrRefused) != (c.why != "") || err != nil && !strings.Contains(err.Error(), c.why) || errors.Is(err, product.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "only-for-tests")) {
			t.Errorf("the error has the password: %v", err)
		}
	}
	server.ResetQueries()
	if err := admin.Check(t.Context()); err != nil || server.Queries() != 0 {
		t.Errorf("a check: %v, and the server's log has %d queries", err, server.Queries())
	}
	server.Stop()
	for range 2 {
		if err := admin.Check(t.Context()); !errors.Is(err, product.ErrUnavailable) || errors.Is(err, product.ErrRefused) {
			t.Errorf("a server that is down: %v", err)
		}
	}
}

func TestServerThatGoesAwayDuringTheQueryIsUnavailable(t *testing.T) {
	server := postgresrig.Start(t)
	if err := open(t, server.URL(), poolConfig).Seed(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	s := open(t, server.URL(), product.PoolConfig{Min: 1, Max: 2, Wait: time.Minute, Delay: 2 * time.Second})
	result := make(chan error, 1)
	go func() {
		_, err := s.Product(t.Context(), 1)
		result <- err
	}()
	for s.Stats().InUse == 0 {
		time.Sleep(time.Millisecond) // no event announces it
	}
	server.Stop()
	if err := <-result; !errors.Is(err, product.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestMissingTableSaysWhatToDo(t *testing.T) {
	s := open(t, postgresrig.Start(t).URL(), poolConfig)
	_, err := s.Product(t.Context(), 1)
	if err == nil || errors.Is(err, product.ErrUnavailable) || !strings.Contains(err.Error(), "fleetcall initdb") {
		t.Errorf("got %v", err)
	}
}

func TestMalformedURLIsRefusedWithoutItsPassword(t *testing.T) {
	_, err := postgres.Open(t.Context(), "postgres://user:hunter2@host:notaport/db", poolConfig, nil)
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
