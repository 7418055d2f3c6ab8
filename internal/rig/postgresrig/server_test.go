package postgresrig_test

import (
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPostgresCountsStatementsFromItsOwnLog(t *testing.T) {
	p := postgresrig.Start(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		t.Fatal(err)
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE products (id int)")
	exec("SELECT * FROM products")
	if n := p.Queries(); n != 1 {
		t.Errorf("%d queries, want 1", n)
	}
	p.ResetQueries()
	exec("SELECT * FROM products WHERE id = $1", 1)
	exec("SELECT *\n\tFROM\n\tproducts WHERE id = $1", 2)
	exec("SELECT 1")
	if n := p.Queries(); n != 2 {
		t.Errorf("%d queries, want 2: %q", n, p.Statements())
	}
	if n := len(p.Statements()); n != 3 {
		t.Errorf("%d statements, want 3: %q", n, p.Statements())
	}

	p.Stop()
	if err := conn.Ping(ctx); err == nil {
		t.Error("a stopped server answered")
	}
	p.Start()
	conn, err = pgx.Connect(ctx, p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	exec("SELECT * FROM products")
	if n := p.Queries(); n != 3 {
		t.Errorf("%d queries after a restart, want 3", n)
	}
}
