package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"golang.org/x/net/html"

	"github.com/fleetcall/fleetcall/internal/report"
)

// asProgram makes the test binary run a command as fleetcall does.
const asProgram = "FLEETCALL_TEST_COMMAND"

// command returns this program with its standard output to be set.
func command(t *testing.T, args string, env ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, strings.Fields(args)...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), append(env, asProgram+"=1")...)
	return cmd
}

// expectPlain fails the test unless every line fits into 80 columns, without
// a character that a terminal acts upon.
func expectPlain(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\r\n")); n > 80 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if strings.ContainsAny(strings.ReplaceAll(out, "\r\n", "\n"), "\x1b\r\b\x07") {
		t.Errorf("%q", out)
	}
}

func reportJSON(t *testing.T, path string) (r struct {
	Command string
	Setup   []report.Fact
	Runs    []struct {
		Name     string
		Queries  *int64 `json:"database_queries"`
		NotKnown string `json:"counts_not_known"`
		Wrong    bool
		Result   json.RawMessage
		Fleet    json.RawMessage
	}
}) {
	t.Helper()
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == "pre" && len(n.Attr) == 1 && n.Attr[0].Val == "json" {
			if err := json.Unmarshal([]byte(n.FirstChild.Data), &r); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

func TestLoadWritesWhatItPrintsAsAPage(t *testing.T) {
	r := start(t, "--replica-id=r1")
	path := filepath.Join(t.TempDir(), "out.html")
	address := strings.Replace(r.url, "http://", "http://user:hunter2@", 1)
	cmd := command(t, "load -n 40 -c 10 --format json --reset --url "+address+" --report "+path, "ADMIN_TOKEN=hunter2")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var printed struct{ Result json.RawMessage }
	if err := json.Unmarshal(out, &printed); err != nil {
		t.Fatal(err)
	}
	page := reportJSON(t, path)
	var compact [2]bytes.Buffer
	if len(page.Runs) != 1 {
		t.Fatalf("%+v", page)
	}
	for i, raw := range []json.RawMessage{printed.Result, page.Runs[0].Result} {
		if err := json.Compact(&compact[i], raw); err != nil {
			t.Fatal(err)
		}
	}
	if compact[0].String() != compact[1].String() || compact[0].Len() == 0 {
		t.Errorf("printed %s\non the page %s", compact[0].String(), compact[1].String())
	}
	if n := page.Runs[0].Queries; n == nil || *n < 1 || *n > 40 {
		t.Errorf("%+v", page.Runs)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(content), string(out), stderr.String()} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("a secret is in %s", text)
		}
	}
	if !strings.Contains(page.Command, "--requests=40 --concurrency=10") || !strings.Contains(page.Command, "--url="+r.url) {
		t.Errorf("command line %q", page.Command)
	}
}

func TestDemoWritesAPageAndFitsEightyColumns(t *testing.T) {
	cmd := command(t, "demo -n 30 --replicas 2 --balancer builtin --report out.html", "QUERY_DELAY=1s", "NO_COLOR=1", "TERM=dumb", "TMPDIR="+t.TempDir())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, stdout.String(), stderr.String())
	}
	expectPlain(t, stdout.String())
	if !strings.Contains(stdout.String(), "┐ ┌─ distributed") {
		t.Errorf("the modes are not beside one another:\n%s", stdout.String())
	}
	page := reportJSON(t, filepath.Join(cmd.Dir, "out.html"))
	if len(page.Runs) != 3 || *page.Runs[0].Queries != 30 || *page.Runs[2].Queries != 1 || page.Runs[0].Wrong || page.Runs[2].Wrong {
		t.Errorf("%+v", page)
	}
	if !strings.HasPrefix(page.Command, "QUERY_DELAY=1s fleetcall demo --requests=30") {
		t.Errorf("command line %q", page.Command)
	}
}

func TestADumbTerminalGetsNoControlCharacters(t *testing.T) {
	r := start(t)
	for _, env := range []string{"TERM=dumb", "NO_COLOR=1"} {
		cmd := command(t, "load -n 300 -c 3 --url "+r.url, env)
		terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		_, _ = out.ReadFrom(terminal) // ends with an error when the program does
		_ = terminal.Close()
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, out.String())
		}
		if env == "TERM=dumb" {
			expectPlain(t, out.String())
		}
		if strings.Contains(out.String(), "\x1b[3") || strings.Contains(out.String(), "\x1b[9") || !strings.Contains(out.String(), "coalesced endpoint") {
			t.Errorf("%s: %q", env, out.String())
		}
	}
}

func TestAReportThatCannotBeWrittenIsKnownBeforeTheLoad(t *testing.T) {
	r := start(t)
	for _, args := range []string{"load -n 1 --url " + r.url, "demo -n 1"} {
		out, err := command(t, args+" --report "+filepath.Join(t.TempDir(), "no", "out.html")).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "no such file or directory") || strings.Contains(string(out), "requests") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

// A flag that is added later has to be in the command line of a report, unless
// it is a secret.
func TestTheCommandLineHasEveryFlagButTheSecrets(t *testing.T) {
	secrets := []string{"AdminToken", "DatabaseURL", "RedisURL"}
	load := &loadCmd{URL: "http://x", Endpoint: "coalesced", IDs: "7", Batch: 3, Requests: 5, Concurrency: 6, Format: "json", Reset: true, AdminToken: "hunter2", Report: "a b.html"}
	demo := &demoCmd{QueryDelay: time.Second, Requests: 5, Concurrency: 6, Replicas: 7, Balancer: "nginx", DatabaseURL: "postgres://u:hunter2@h", RedisURL: "redis://:hunter2@h", Verbose: true, Report: "a b.html"}
	for line, command := range map[string]any{load.commandLine("http://x"): *load, demo.commandLine(): *demo} {
		kind, value := reflect.TypeOf(command), reflect.ValueOf(command)
		for i := range kind.NumField() {
			if _, argument := kind.Field(i).Tag.Lookup("arg"); argument {
				continue // it stands there as --url
			}
			flag := "--" + strings.ToLower(regexp.MustCompile("([a-z])([A-Z])").ReplaceAllString(kind.Field(i).Name, "$1-$2"))
			if value.Field(i).IsZero() {
				t.Errorf("%s is not set by this test", flag)
			}
			if strings.Contains(line, flag) == slices.Contains(secrets, kind.Field(i).Name) {
				t.Errorf("%s: %s", flag, line)
			}
		}
		if strings.Contains(line, "hunter2") || !strings.Contains(line, "'--report=a b.html'") {
			t.Error(line)
		}
	}
	if !strings.HasPrefix(demo.commandLine(), "DATABASE_URL=… REDIS_URL=… fleetcall demo ") {
		t.Error(demo.commandLine())
	}
}

func TestSentencesAreWrapped(t *testing.T) {
	sentence := strings.Repeat("17 replica-1, ", 20)
	wrapped := wrap(sentence, 80)
	expectPlain(t, wrapped)
	if strings.Join(strings.Fields(wrapped), " ") != strings.TrimSpace(sentence) || strings.Count(wrapped, "\n") != 3 {
		t.Errorf("%s", wrapped)
	}
}
