// Package postgresrig starts private PostgreSQL servers for tests. The servers log
// every statement, so that tests can count the queries without trusting the program.
package postgresrig

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"

	"github.com/jackc/pgx/v5"
)

const (
	userName = "fleetcall"
	password = "only-for-tests"
	// logEntry marks the start of each entry in the server's log, because an entry may
	// have several lines.
	logEntry = "#fleetcall#"
)

// Server is a private PostgreSQL server that logs every statement before it runs it.
type Server struct {
	Addr string // host:port

	t          testing.TB
	postgres   string // path of the executable
	dir        string
	credential *process.Credential
	proc       *process.Process
	offset     atomic.Int64 // position in the log from which statements count
}

// Start creates a database cluster, starts a server for it, and waits until the server
// accepts connections. The server is stopped when the test ends. If the test runs as
// root, the server runs as the user postgres, because PostgreSQL refuses to run as
// root.
func Start(t testing.TB) *Server {
	t.Helper()
	patterns := []string{"/usr/lib/postgresql/*/bin/", "/usr/pgsql-*/bin/", "/opt/homebrew/opt/postgresql@*/bin/", "/usr/local/opt/postgresql@*/bin/"}
	with := func(name string) []string {
		var paths []string
		for _, p := range patterns {
			paths = append(paths, p+name)
		}
		return paths
	}
	p := &Server{t: t, postgres: rig.Program(t, "postgres", "postgresql", with("postgres")...), dir: rig.TempDir(t, "fleetcall-postgres-")}
	p.credential = unprivileged(t)
	if p.credential != nil {
		if err := os.Chown(p.dir, int(p.credential.Uid), int(p.credential.Gid)); err != nil {
			t.Fatalf("fleetcall: giving the data directory to postgres: %v", err)
		}
	}
	p.initdb(rig.Program(t, "initdb", "postgresql", with("initdb")...))
	t.Cleanup(p.Stop)
	var err error
	for range 10 { // another process may take the port first
		p.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(rig.FreePort(t)))
		if err = p.start(); err == nil {
			return p
		}
	}
	t.Fatal(err)
	return nil
}

// URL returns the server's postgres:// URL with user and password.
func (p *Server) URL() string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(userName, password),
		Host:     p.Addr,
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}).String()
}

// Start starts a stopped server again with the same port and data.
func (p *Server) Start() {
	p.t.Helper()
	var err error
	for range 50 { // connections may hold the port a little longer
		if err = p.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.t.Fatal(err)
}

// Stop stops the server immediately, which closes all connections, and returns when it
// has ended. It does nothing if the server is stopped.
func (p *Server) Stop() {
	if p.proc == nil || !p.proc.Running() {
		return
	}
	p.proc.Stop(syscall.SIGQUIT, 10*time.Second)
}

// Hold makes every query of products wait until release is called. The server counts a
// query when it begins to wait.
func (p *Server) Hold() (release func()) {
	p.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, p.URL())
	if err == nil {
		_, err = conn.Exec(ctx, "BEGIN; LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
	}
	if err != nil {
		p.t.Fatalf("fleetcall: holding the table products: %v", err)
	}
	return sync.OnceFunc(func() { _ = conn.Close(ctx) })
}

// Held returns the names of the applications whose queries wait until the table is released,
// one for each query.
func (p *Server) Held() []string {
	p.t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, p.URL())
	if err != nil {
		p.t.Fatalf("fleetcall: asking postgres what waits: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT application_name FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
	if err != nil {
		p.t.Fatalf("fleetcall: asking postgres what waits: %v", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		p.t.Fatalf("fleetcall: asking postgres what waits: %v", err)
	}
	return names
}

var fromProducts = regexp.MustCompile(`(?i)\bfrom (public\.)?"?products\b`)

// Queries returns the number of statements with FROM products that the server has
// started since ResetQueries, according to its own log. The server logs a statement
// before it runs it, so every statement with a result is counted.
func (p *Server) Queries() int {
	n := 0
	for _, statement := range p.Statements() {
		if fromProducts.MatchString(statement) {
			n++
		}
	}
	return n
}

// Statements returns the statements that the server has started since ResetQueries, in
// order, each on one line.
func (p *Server) Statements() []string {
	p.t.Helper()
	log, err := os.ReadFile(p.log())
	if err != nil {
		p.t.Fatalf("fleetcall: reading the log of postgres: %v", err)
	}
	var statements []string
	for entry := range strings.SplitSeq(string(log[min(p.offset.Load(), int64(len(log))):]), logEntry) {
		entry = strings.Join(strings.Fields(entry), " ")
		entry, ok := strings.CutPrefix(entry, "LOG: ")
		if !ok {
			continue
		}
		kind, statement, ok := strings.Cut(entry, ": ")
		if ok && (kind == "statement" || strings.HasPrefix(kind, "execute ")) {
			statements = append(statements, statement)
		}
	}
	return statements
}

// ResetQueries makes Queries and Statements start again from here.
func (p *Server) ResetQueries() {
	p.t.Helper()
	info, err := os.Stat(p.log())
	if err != nil {
		p.t.Fatalf("fleetcall: reading the log of postgres: %v", err)
	}
	p.offset.Store(info.Size())
}

func (p *Server) log() string  { return filepath.Join(p.dir, "log") }
func (p *Server) data() string { return filepath.Join(p.dir, "data") }

func (p *Server) initdb(path string) {
	p.t.Helper()
	passwords := filepath.Join(p.dir, "password")
	if err := os.WriteFile(passwords, []byte(password+"\n"), 0o644); err != nil {
		p.t.Fatalf("fleetcall: preparing initdb: %v", err)
	}
	var output rig.Output
	proc, err := process.Start(process.Spec{
		Path: path,
		Args: []string{"-D", p.data(), "-U", userName, "--pwfile", passwords, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"},
		Dir:  p.dir, Stdout: &output, Stderr: &output, Credential: p.credential,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	<-proc.Done()
	if err := proc.Err(); err != nil {
		p.t.Fatalf("fleetcall: running initdb: %v\n%s", err, output.String())
	}
}

func (p *Server) start() error {
	_, port, err := net.SplitHostPort(p.Addr)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(p.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("fleetcall: opening the log of postgres: %w", err)
	}
	defer func() { _ = log.Close() }()
	settings := []string{
		"listen_addresses=127.0.0.1", "port=" + port, "unix_socket_directories=",
		"fsync=off", "full_page_writes=off",
		"max_connections=400", "shared_buffers=32MB",
		"logging_collector=off", "log_destination=stderr", "log_statement=all", "log_line_prefix=" + logEntry,
	}
	args := []string{"-D", p.data()}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	begin, err := os.Stat(p.log())
	if err != nil {
		return err
	}
	p.proc, err = process.Start(process.Spec{
		Path: p.postgres, Args: args, Dir: p.dir, Stdout: log, Stderr: log, Credential: p.credential,
		DeathSignal: syscall.SIGQUIT, // on which postgres stops its workers
	})
	if err != nil {
		return err
	}
	// The data directory tells this server from another process's that has taken the
	// port.
	err = rig.Eventually(p.proc.Done(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, p.URL())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close(ctx) }()
		var dir string
		if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&dir); err != nil {
			return err
		}
		if dir != p.data() {
			return fmt.Errorf("another server listens on %s", p.Addr)
		}
		return nil
	})
	if err != nil {
		p.proc.Stop(syscall.SIGQUIT, 5*time.Second)
		text, _ := os.ReadFile(p.log())
		return fmt.Errorf("fleetcall: starting postgres on %s: %w\n%s", p.Addr, err, text[min(begin.Size(), int64(len(text))):])
	}
	return nil
}

// unprivileged returns the user that a server runs as if it refuses to run as root, or
// nil if the test does not run as root.
func unprivileged(t testing.TB) *process.Credential {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatalf("PostgreSQL does not run as root, and there is no user postgres to run it as: %v; on Debian or Ubuntu: apt-get install -y postgresql", err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		t.Fatalf("fleetcall: the user postgres has ids %q and %q, which are no numbers", u.Uid, u.Gid)
	}
	return &process.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
