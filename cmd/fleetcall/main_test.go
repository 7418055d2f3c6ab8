package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
)

func TestMain(m *testing.M) {
	// The replicas of a fleet are this program, too.
	if os.Getenv(asProgram) != "" {
		main()
	}
	// The settings of whoever runs the tests are not the tests'.
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		switch prefix, _, _ := strings.Cut(name, "_"); prefix {
		case "LISTEN", "DATABASE", "REDIS", "COALESCE", "REPLICA", "QUERY", "DB", "ADMIN", "LOG", "SHUTDOWN", "MAX", "PPROF", "FLEET", "DEMO", "LOAD":
			_ = os.Unsetenv(name)
		}
	}
	goleak.VerifyTestMain(m)
}

// unset removes what a test has put into the environment by reading a file.
func unset(t *testing.T, names ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, name := range names {
			_ = os.Unsetenv(name)
		}
	})
}

// parse returns the settings that serve has for flags and the environment.
func parse(t *testing.T, args ...string) *serveCmd {
	t.Helper()
	c, err := parseCommand(append([]string{"serve"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return &c.Serve
}

// parseCommand returns the settings of all commands for this command line.
func parseCommand(args ...string) (*cli, error) {
	var c cli
	parser, err := kong.New(&c)
	if err != nil {
		return nil, err
	}
	_, err = parser.Parse(args)
	return &c, err
}

func TestDefaultsAreTheContracts(t *testing.T) {
	c := parse(t)
	if c.Listen != ":8000" || c.DatabaseURL != "" || c.RedisURL != "" || c.Mode != "" || c.QueryDelay != 500*time.Millisecond ||
		c.DBPoolMin != 5 || c.DBPoolMax != 10 || c.Namespace != "fleetcall" || c.LeaseTTL != 3*time.Second ||
		c.FlightTimeout != 30*time.Second || c.MaxAge != 0 || c.RedisTimeout != 250*time.Millisecond || c.AdminToken != "" ||
		c.LogLevel.String() != "INFO" || c.LogFormat != "text" {
		t.Errorf("%+v", c)
	}
}

func TestFlagWinsOverEnvironmentWinsOverFile(t *testing.T) {
	t.Chdir(t.TempDir())
	file := "# settings\nCOALESCE_NAMESPACE=file\nQUERY_DELAY=1s\nDB_POOL_MAX='20'\nREDIS_URL=redis://file\nexport ADMIN_TOKEN=\"a b\"\n"
	if err := os.WriteFile(".env", []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	unset(t, "DB_POOL_MAX", "ADMIN_TOKEN")
	t.Setenv("COALESCE_NAMESPACE", "environment")
	t.Setenv("QUERY_DELAY", "2s")
	t.Setenv("REDIS_URL", "") // says: none, whatever the file says
	if err := loadEnvironment(".env"); err != nil {
		t.Fatal(err)
	}
	c := parse(t, "--query-delay=3s")
	if c.QueryDelay != 3*time.Second || c.Namespace != "environment" || c.DBPoolMax != 20 || c.RedisURL != "" || c.AdminToken != "a b" {
		t.Errorf("%+v", c)
	}
}

func TestFileThatIsNoEnvironmentIsRefusedWithoutItsText(t *testing.T) {
	for text, line := range map[string]string{
		"ADMIN_TOKEN hunter2\n": "line 1",
		"# settings\n\nDB_POOL_MAX=20\nADMIN_TOKEN hunter2\nQUERY_DELAY=1s\n":                                      "line 4",
		"ADMIN_TOKEN=\"hunter2\nof several lines\"\nDB_POOL_MAX=20\nQUERY_DELAY 1s\nDB_POOL_MIN=\"1\nand more\"\n": "line 4",
		"DB_POOL_MAX=20\nADMIN_TOKEN=\"hunter2\nQUERY_DELAY=1s\n":                                                  "line 2",
	} {
		path := filepath.Join(t.TempDir(), ".env")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		err := loadEnvironment(path)
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), ".env") || !strings.Contains(err.Error(), line+" ") {
			t.Errorf("%q: got %v, want %s", text, err, line)
		}
	}
}

func TestAMisspeltVariableIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("COALESCE_NAMESPCE", "shop")
	t.Setenv("DB_HOST_OF_ANOTHER_PROGRAM", "hunter2")
	t.Setenv("COALESCE_LEASE_TTL", "3s")
	var stdout, stderr output
	if code := run(t.Context(), []string{"version"}, &stdout, &stderr); code != 0 {
		t.Errorf("exit status %d", code)
	}
	says := stderr.String()
	for _, want := range []string{"COALESCE_NAMESPCE", "did you mean COALESCE_NAMESPACE?", "DB_HOST_OF_ANOTHER_PROGRAM, which is no setting of fleetcall's and has no effect\n"} {
		if !strings.Contains(says, want) {
			t.Errorf("%q is not in: %s", want, says)
		}
	}
	if strings.Contains(says, "hunter2") || strings.Contains(says, "COALESCE_LEASE_TTL") {
		t.Errorf("it says too much: %s", says)
	}
}

// output is safe to read while a command writes it.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// wrongCalls are refused, with sentences that have these words.
var wrongCalls = []struct {
	args string
	env  [2]string
	code int
	want []string
}{
	{args: "serve --query-delay=abc", code: 2, want: []string{"--query-delay"}},
	{args: "serve", env: [2]string{"QUERY_DELAY", "abc"}, code: 2, want: []string{"--query-delay", "QUERY_DELAY"}},
	{args: "serve", env: [2]string{"QUERY_DELAY", "-1s"}, code: 2, want: []string{"--query-delay", "QUERY_DELAY"}},
	{args: "serve", env: [2]string{"COALESCE_MODE", "both"}, code: 2, want: []string{"--mode", "COALESCE_MODE", "distributed"}},
	{args: "serve", env: [2]string{"COALESCE_MODE", "distributed"}, code: 2, want: []string{"COALESCE_MODE", "REDIS_URL"}},
	{args: "serve", env: [2]string{"DB_POOL_MIN", "11"}, code: 2, want: []string{"DB_POOL_MIN", "DB_POOL_MAX"}},
	{args: "serve", env: [2]string{"DB_POOL_MAX", "0"}, code: 2, want: []string{"DB_POOL_MAX"}},
	{args: "serve", env: [2]string{"LISTEN_ADDR", "8000"}, code: 2, want: []string{"LISTEN_ADDR"}},
	{args: "serve", env: [2]string{"LOG_LEVEL", "loud"}, code: 2, want: []string{"LOG_LEVEL"}},
	{args: "serve", env: [2]string{"LOG_FORMAT", "xml"}, code: 2, want: []string{"LOG_FORMAT"}},
	{args: "serve", env: [2]string{"COALESCE_REDIS_TIMEOUT", "0s"}, code: 2, want: []string{"COALESCE_REDIS_TIMEOUT"}},
	{args: "serve", env: [2]string{"COALESCE_REDIS_TIMEOUT", "4s"}, code: 2, want: []string{"--redis-timeout", "COALESCE_REDIS_TIMEOUT", "--lease-ttl", "COALESCE_LEASE_TTL", "lower the one or raise the other"}},
	{args: "serve --lease-ttl=100ms", code: 2, want: []string{"--redis-timeout", "COALESCE_REDIS_TIMEOUT", "--lease-ttl", "COALESCE_LEASE_TTL"}},
	{args: "serve", env: [2]string{"COALESCE_NAMESPACE", "{x}"}, code: 2, want: []string{"COALESCE_NAMESPACE"}},
	{args: "serve", env: [2]string{"REPLICA_ID", "a\nb"}, code: 2, want: []string{"REPLICA_ID"}},
	{args: "serve", env: [2]string{"ADMIN_TOKEN", " hunter2"}, code: 2, want: []string{"ADMIN_TOKEN", "blanks around", "openssl rand"}},
	{args: "serve", env: [2]string{"ADMIN_TOKEN", "hunter2\n"}, code: 2, want: []string{"ADMIN_TOKEN", "blanks around", "openssl rand"}},
	{args: "serve", env: [2]string{"ADMIN_TOKEN", "hunter2\u00a0"}, code: 2, want: []string{"ADMIN_TOKEN", "ASCII", "openssl rand"}},
	{args: "serve", env: [2]string{"ADMIN_TOKEN", "schlüssel"}, code: 2, want: []string{"ADMIN_TOKEN", "ASCII", "openssl rand"}},
	{args: "serve", env: [2]string{"MAX_CONNECTIONS", "0"}, code: 2, want: []string{"MAX_CONNECTIONS"}},
	{args: "serve", env: [2]string{"SHUTDOWN_DELAY", "-1s"}, code: 2, want: []string{"SHUTDOWN_DELAY"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", "6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", ":6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", "0.0.0.0:6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", "[::]:6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", "192.0.2.1:6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve", env: [2]string{"PPROF_ADDR", "example.com:6060"}, code: 2, want: []string{"PPROF_ADDR", "loopback"}},
	{args: "serve --listen 127.0.0.1:0", env: [2]string{"REDIS_URL", "redis://:hun/ter2@localhost"}, code: 1, want: []string{"REDIS_URL"}},
	{args: "serve --listen 127.0.0.1:0", env: [2]string{"DATABASE_URL", "mysql://root:hunter2@localhost/x"}, code: 1, want: []string{"DATABASE_URL"}},
	{args: "serve --listen 127.0.0.1:0", env: [2]string{"DATABASE_URL", "sqlite:///dev/null/products.db"}, code: 1, want: []string{"embedded database"}},
	{args: "initdb", code: 1, want: []string{"DATABASE_URL"}},
	{args: "nonsense", code: 2, want: []string{"nonsense"}},
}

func TestWrongCallsNameTheFlagAndTheVariable(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range wrongCalls {
		name := c.args + " " + c.env[0] + "=" + c.env[1]
		t.Run(name, func(t *testing.T) {
			if c.env[0] != "" {
				t.Setenv(c.env[0], c.env[1])
			}
			var stdout, stderr output
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if code := run(ctx, strings.Fields(c.args), &stdout, &stderr); code != c.code {
				t.Errorf("exit status %d, want %d", code, c.code)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr.String(), want) {
					t.Errorf("%q is not in: %s", want, stderr.String())
				}
			}
			if strings.Contains(stderr.String(), "hunter2") || strings.Contains(stderr.String(), "ter2@") {
				t.Errorf("a password is in: %s", stderr.String())
			}
		})
	}
}

func TestHelpAndVersionSucceed(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, args := range []string{"--help", "serve --help", "version"} {
		var stdout, stderr output
		if code := run(t.Context(), strings.Fields(args), &stdout, &stderr); code != 0 || !strings.Contains(stdout.String(), "fleetcall") {
			t.Errorf("%s: exit status %d, %q, %q", args, code, stdout.String(), stderr.String())
		}
	}
}

func TestEveryServeFlagHasItsVariable(t *testing.T) {
	var c cli
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range parser.Model.Children {
		if command.Name != "serve" && command.Name != "initdb" {
			continue
		}
		for _, flag := range command.Flags {
			if len(flag.Envs) == 0 {
				t.Errorf("%s --%s has none", command.Name, flag.Name)
			}
		}
	}
}

func TestInitdbFillsADatabaseAgainAndAgain(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, address := range map[string]string{
		"PostgreSQL": postgresrig.Start(t).URL(),
		"embedded":   "sqlite://" + filepath.Join(t.TempDir(), "products.db"),
	} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				var stdout, stderr output
				if code := run(t.Context(), []string{"initdb", "--database-url", address}, &stdout, &stderr); code != 0 {
					t.Fatalf("exit status %d: %s", code, stderr.String())
				}
				if out := stdout.String(); !strings.Contains(out, " 100 of 1000") || !strings.Contains(out, "1000 of 1000") || !strings.Contains(out, "ready") {
					t.Errorf("progress:\n%s", out)
				}
			}
		})
	}
}
