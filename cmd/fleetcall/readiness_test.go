package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
)

func TestAReplicaThatItsDatabaseRefusesIsNotReadyAndLogsWhy(t *testing.T) {
	database := postgresrig.Start(t)
	exec := func(statement string) {
		t.Helper()
		conn, err := pgx.Connect(t.Context(), database.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	table := strings.Replace(database.URL(), "/postgres?", "/empty?", 1)
	exec("CREATE DATABASE empty")
	exec("CREATE ROLE shop SUPERUSER LOGIN PASSWORD 'right'")
	for _, c := range []struct {
		name, address string
		why           string
		repair        func()
	}{
		{"no table", table, "the table is missing, run fleetcall initdb", func() { fill(t, table) }},
		{"no database", strings.Replace(table, "/empty?", "/later?", 1), `database \"later\" does not exist`, func() { exec("CREATE DATABASE later TEMPLATE empty") }},
		{"a wrong password", strings.Replace(table, "fleetcall:only-for-tests", "shop:hunter2", 1), "password authentication failed", func() { exec("ALTER ROLE shop PASSWORD 'hunter2'") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := launch(t, "--database-url", c.address, "--db-pool-min=0")
			r.expectRefused(t, c.why)
			c.repair()
			eventually(t, "ready", func() bool { return get[api.ReadinessResponse](t, r, "/readyz").Status == api.Ready })
			r.expect(t, "/product/coalesced/1", http.StatusOK)
			r.expect(t, "/health", http.StatusOK)
			if len(r.lines("msg=ready")) != 1 || strings.Contains(r.log.String(), "hunter2") || strings.Contains(r.log.String(), "only-for-tests") {
				t.Errorf("want one line that says so, and no password:\n%s", r.log)
			}
			database.Stop()
			defer database.Start()
			r.expect(t, "/product/coalesced/1", http.StatusServiceUnavailable)
			r.expect(t, "/health", http.StatusServiceUnavailable)
			r.expect(t, "/readyz", http.StatusOK)
		})
	}
}

// expectRefused fails the test unless the replica is not ready, and its log says why.
func (r *running) expectRefused(t *testing.T, why string) {
	t.Helper()
	eventually(t, "logged", func() bool { return len(r.lines("not ready: the database refuses this replica")) > 0 })
	if lines := r.lines(`level=ERROR msg="not ready: the database refuses this replica"`); len(lines) != 1 || !strings.Contains(lines[0], why) {
		t.Errorf("want %q in the log:\n%s", why, r.log)
	}
	if a := get[api.ReadinessResponse](t, r, "/readyz"); a.Status != api.Refused {
		t.Errorf("%+v", a)
	}
	r.expect(t, "/readyz", http.StatusServiceUnavailable)
	r.expect(t, "/livez", http.StatusOK)
	if h := get[api.Health](t, r, "/health"); h.Status != "unhealthy" || h.Database != "refused" {
		t.Errorf("%+v", h)
	}
	command := healthCmd{Listen: strings.TrimPrefix(r.url, "http://")}
	if err := command.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "not ready: refused") {
		t.Errorf("fleetcall health: %v", err)
	}
	if len(r.lines("msg=ready")) != 0 {
		t.Errorf("it says that it is ready:\n%s", r.log)
	}
}

func TestReadinessFollowsTheDatabaseUntilItHasTakenTheReplica(t *testing.T) {
	down := fmt.Errorf("%w: connection refused", product.ErrUnavailable)
	refused := fmt.Errorf("%w: password", product.ErrRefused)
	hangs := errors.New("hangs")
	for name, c := range map[string]struct {
		answers []error
		want    []api.Readiness // after each of them
		log     string          // the messages
	}{
		"taken at once":                 {[]error{nil}, []api.Readiness{api.Ready}, "ready"},
		"down":                          {[]error{down, down, nil}, []api.Readiness{api.Ready, api.Ready, api.Ready}, "the database cannot be reached, ready"},
		"refused, and taken":            {[]error{refused, refused, nil}, []api.Readiness{api.Refused, api.Refused, api.Ready}, "not ready: the database refuses this replica, listening, but not ready: the database refuses this replica, ready"},
		"down, and then it refuses":     {[]error{down, refused, nil}, []api.Readiness{api.Ready, api.Refused, api.Ready}, "the database cannot be reached, ready, not ready: the database refuses this replica, ready"},
		"refused, and then it is down":  {[]error{refused, down, nil}, []api.Readiness{api.Refused, api.Refused, api.Ready}, "not ready: the database refuses this replica, listening, but not ready: the database refuses this replica, ready"},
		"silent, and then it refuses":   {[]error{hangs, refused, nil}, []api.Readiness{api.Starting, api.Refused, api.Ready}, "listening, but not ready: the database has not answered yet, the database cannot be reached, ready, not ready: the database refuses this replica, ready"},
		"silent, and nobody knows more": {[]error{hangs, hangs, nil}, []api.Readiness{api.Starting, api.Ready, api.Ready}, "listening, but not ready: the database has not answered yet, the database cannot be reached, ready"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log output
				next := make(chan error)
				r := newReadiness(func(ctx context.Context) error {
					err := <-next
					if errors.Is(err, hangs) {
						<-ctx.Done()
						err = fmt.Errorf("%w: %w", product.ErrUnavailable, ctx.Err())
					}
					return err
				}, slog.New(slog.NewTextHandler(&log, nil)))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go r.run(ctx)
				for i, err := range c.answers {
					next <- err
					synctest.Wait()
					if got := r.load(); got != c.want[i] {
						t.Errorf("after answer %d: %s, want %s", i+1, got, c.want[i])
					}
					if i == 0 {
						r.log.Info(r.announce())
					}
				}
				cancel()
				var messages []string
				for line := range strings.Lines(log.String()) {
					_, message, _ := strings.Cut(line, "msg=")
					message, _, _ = strings.Cut(strings.TrimSpace(message), " error=")
					messages = append(messages, strings.Trim(message, `"`))
				}
				if got := strings.Join(messages, ", "); got != c.log {
					t.Errorf("the log says: %s\nwant: %s", got, c.log)
				}
			})
		})
	}
}

func TestTheLogSaysWithinASecondWhyAReplicaIsNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log output
		r := &replica{log: slog.New(slog.NewTextHandler(&log, nil))}
		r.ready = newReadiness(func(ctx context.Context) error {
			<-ctx.Done() // as from a host that drops all packets
			return fmt.Errorf("%w: %w", product.ErrUnavailable, ctx.Err())
		}, r.log)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.ready.run(ctx)
		begin := time.Now()
		r.await(ctx)
		if waited := time.Since(begin); waited > time.Second || r.ready.announce() != "listening, but not ready: the database has not answered yet" {
			t.Errorf("after %v: %s", waited, r.ready.announce())
		}
	})
}
