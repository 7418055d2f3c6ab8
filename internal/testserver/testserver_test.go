package testserver_test

import (
	"context"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/testserver"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRedisHangsRestartsEmptyAndDies(t *testing.T) {
	r := testserver.StartRedis(t, "--requirepass", "secret")
	client := r.Client()
	ctx := t.Context()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}

	r.Freeze()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := client.Get(short, "k").Err(); err == nil {
		t.Error("a frozen server answered")
	}
	r.Thaw()
	if v, err := client.Get(ctx, "k").Result(); v != "v" || err != nil {
		t.Errorf("after Thaw: %q, %v", v, err)
	}

	r.Kill()
	if err := client.Ping(ctx).Err(); err == nil {
		t.Error("a killed server answered")
	}
	r.Restart()
	if n, err := client.Exists(ctx, "k").Result(); n != 0 || err != nil {
		t.Errorf("after Restart: %d keys, %v", n, err)
	}
}

func TestPostgresCountsStatementsFromItsOwnLog(t *testing.T) {
	p := testserver.StartPostgres(t)
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
