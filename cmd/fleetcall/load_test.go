package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/creack/pty"
)

// roundRobin is a balancer before the replicas. passed is how many requests it
// has passed on.
func roundRobin(t *testing.T, passed *atomic.Int64, replicas ...*running) *httptest.Server {
	t.Helper()
	var proxies []http.Handler
	for _, r := range replicas {
		base, err := url.Parse(r.url)
		if err != nil {
			t.Fatal(err)
		}
		proxies = append(proxies, &httputil.ReverseProxy{
			Transport: r.client.Transport,
			Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(base) },
			ErrorLog:  log.New(io.Discard, "", 0), // of clients that are broken off
		})
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proxies[int(passed.Add(1))%len(proxies)].ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server
}

// runLoad runs `fleetcall load` and returns what it printed.
func runLoad(t *testing.T, args string, env ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := command(t, "load "+args, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// words takes the line breaks out of wrapped text.
func words(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestCountsOfOneOfTwoReplicasAreNotTakenForTheFleets(t *testing.T) {
	for _, mode := range []string{"off", "local"} {
		var passed atomic.Int64
		balancer := roundRobin(t, &passed, start(t, "--replica-id=r1", "--mode="+mode), start(t, "--replica-id=r2", "--mode="+mode))
		path := filepath.Join(t.TempDir(), "out.html")
		const reason = "answered, but the statistics are of r"
		out, stderr, err := runLoad(t, "-n 40 -c 10 "+balancer.URL+" --report "+path)
		if err != nil || strings.Contains(out, "Queries prevented") || !strings.Contains(words(out), "not known: r") {
			t.Errorf("%v\n%s", err, out)
		}
		expectPlain(t, out)
		page := reportJSON(t, path)
		if len(page.Runs) != 1 || page.Runs[0].Queries != nil || page.Runs[0].Fleet != nil {
			t.Errorf("%+v", page.Runs)
		}
		content, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(content), "counted by") {
			t.Errorf("%v: the report says who counted", err)
		}
		asJSON, _, err := runLoad(t, "-n 40 -c 10 --format json --url "+balancer.URL)
		var printed struct {
			Impact   *impact
			NotKnown string `json:"counts_not_known"`
		}
		if jsonErr := json.Unmarshal([]byte(asJSON), &printed); err != nil || jsonErr != nil || printed.Impact != nil {
			t.Errorf("%v, %v: %s", err, jsonErr, asJSON)
		}
		for where, text := range map[string]string{"stdout": words(out), "stderr": words(stderr), "the page": string(content), "its JSON": page.Runs[0].NotKnown, "the JSON": printed.NotKnown} {
			if !strings.Contains(text, reason) {
				t.Errorf("mode %s: the reason is not in %s:\n%s", mode, where, text)
			}
		}
	}
}

func TestOneReplicaWithoutRedisIsCounted(t *testing.T) {
	r := start(t, "--replica-id=r1")
	path := filepath.Join(t.TempDir(), "out.html")
	for range 2 { // whatever was counted before
		out, stderr, err := runLoad(t, "-n 40 -c 10 --url "+r.url+" --report "+path)
		if err != nil || !strings.Contains(out, "Queries without it") || strings.Contains(out+stderr, "not known") {
			t.Errorf("%v\n%s%s", err, out, stderr)
		}
		page := reportJSON(t, path)
		if n := page.Runs[0].Queries; n == nil || *n < 1 || *n > 40 || page.Runs[0].NotKnown != "" {
			t.Errorf("%+v", page.Runs)
		}
		content, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(content), "counted by r1, which gave every answer") {
			t.Errorf("%v: the report does not say that r1 counted", err)
		}
	}
}

func TestALoadOfBatchesSaysWhatTheySaved(t *testing.T) {
	r := start(t, "--replica-id=r1", "--query-delay=50ms")
	path := filepath.Join(t.TempDir(), "out.html")
	out, stderr, err := runLoad(t, "-n 20 -c 20 --batch 100 --ids 1-150 --url "+r.url+" --report "+path)
	if err != nil || !strings.Contains(words(out), "Products asked for 2,000") || !strings.Contains(out, "Products saved") ||
		!strings.Contains(out, "Roles of products:") || strings.Contains(out, "Queries prevented") {
		t.Errorf("%v\n%s%s", err, out, stderr)
	}
	expectPlain(t, out)
	content, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(content), `id="batches"`) || !strings.Contains(string(content), `id="key-roles"`) || !strings.Contains(string(content), "--batch=100") {
		t.Errorf("%v: the report does not tell of batches", err)
	}
	asJSON, _, err := runLoad(t, "-n 4 -c 1 --batch 100 --ids 1-150 --format json --url "+r.url)
	var printed struct {
		Impact  *impact
		Batches *batchImpact
		Result  struct{ KeyRoles map[string]int }
	}
	if jsonErr := json.Unmarshal([]byte(asJSON), &printed); err != nil || jsonErr != nil || printed.Impact != nil || printed.Batches == nil {
		t.Fatalf("%v, %v: %s", err, jsonErr, asJSON)
	}
	want := batchImpact{Keys: 400, QueriedKeys: 400, HitRate: "0.0%", Queries: 4, KeysPerQuery: 100}
	if *printed.Batches != want { // one after the other, they have nothing to share
		t.Errorf("%+v", *printed.Batches)
	}
}

func TestALoadThatIsBrokenOffReportsWhatItMeasured(t *testing.T) {
	var passed atomic.Int64
	balancer := roundRobin(t, &passed, start(t, "--query-delay=100ms"))
	path := filepath.Join(t.TempDir(), "out.html")
	cmd := command(t, "load -n 100000 -c 2 --url "+balancer.URL+" --report "+path)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "under load", func() bool { return passed.Load() > 10 })
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it says that all went well")
	}
	out := stdout.String()
	expectPlain(t, out)
	if !strings.Contains(out, "Latency avg") || !strings.Contains(out, " of 100,000 requests.") || !strings.Contains(out, "not known: the load was broken off") {
		t.Errorf("%s%s", out, stderr.String())
	}
	page := reportJSON(t, path)
	var result struct{ Requests, OK, Failed int }
	if err := json.Unmarshal(page.Runs[0].Result, &result); err != nil || result.OK < 5 || result.OK != result.Requests || result.Failed != 0 {
		t.Errorf("%v, %+v", err, result)
	}
	if page.Runs[0].NotKnown == "" || !strings.Contains(fmt.Sprint(page.Setup), "Broken off") {
		t.Errorf("%+v", page)
	}
}

func TestATargetThatDiesUnderLoadIsReported(t *testing.T) {
	var passed atomic.Int64
	balancer := roundRobin(t, &passed, start(t))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if passed.Load() >= 20 {
			panic(http.ErrAbortHandler) // as if it were not there any more
		}
		balancer.Config.Handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	path := filepath.Join(t.TempDir(), "out.html")
	out, stderr, err := runLoad(t, "-n 100 -c 5 --url "+server.URL+" --report "+path)
	if err == nil || !strings.Contains(out, "Failures:") || !strings.Contains(words(out), "not known: reading the fleet's statistics") || !strings.Contains(stderr, "of 100 requests failed") {
		t.Errorf("%v\n%s%s", err, out, stderr)
	}
	if page := reportJSON(t, path); page.Runs[0].NotKnown == "" || page.Runs[0].Queries != nil {
		t.Errorf("%+v", page.Runs)
	}
}

func TestALoadWithoutOneRightAnswerIsReported(t *testing.T) {
	r := start(t)
	path := filepath.Join(t.TempDir(), "out.html")
	out, stderr, err := runLoad(t, "-n 20 --id 2147483647 --url "+r.url+" --report "+path)
	if err == nil || !strings.Contains(out, "20 status 404 Not Found") || strings.Contains(out, "NaN") {
		t.Errorf("%v\n%s%s", err, out, stderr)
	}
	content, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(content), "NaN") || strings.Contains(string(content), "Inf") {
		t.Errorf("%v: %s", err, content)
	}
}

// The text comes first, and neither overwrites the other.
func TestAReportMayGoToStandardOutput(t *testing.T) {
	r := start(t)
	dir := t.TempDir()
	for _, report := range []string{"/dev/stdout", "/dev/fd/1", "out.html"} {
		cmd := command(t, "load -n 4 --url "+r.url+" --report "+report)
		cmd.Dir = dir
		out, err := os.Create(filepath.Join(dir, "out.html"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = out
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		_ = out.Close()
		content, err := os.ReadFile(out.Name())
		text, page, found := strings.Cut(string(content), "<!doctype html>")
		if err != nil || !found || !strings.Contains(text, "Latency avg") || !strings.HasSuffix(page, "</html>\n") {
			t.Errorf("%s: %v, %s", report, err, content)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
			t.Errorf("%s: %v, %v", report, err, files)
		}
	}
}

func TestLoadAndDemoRefuseWhatCannotBe(t *testing.T) {
	for args, want := range map[string]string{
		"load --url http://user:hunter2@localhost:1?x=1": "--url",
		"load --url http://localhost:1#x":                "--url",
		"load --url ftp://user:hunter2@localhost":        "--url",
		"load --url http://user:hunter2@local%zzhost":    "--url",
		"load --url localhost:8000":                      "--url",
		"load localhost:8000":                            "--url",
		"load -n 0":                                      "--requests",
		"load -c -1":                                     "--concurrency",
		"load --ids 5-1":                                 "--ids",
		"load --batch 201":                               "--batch",
		"load --batch -1":                                "--batch",
		"load --batch 10 --endpoint normal":              "--batch",
		"demo --replicas 0":                              "--replicas",
		"demo --replicas -1":                             "--replicas",
		"demo -n 0":                                      "--requests",
	} {
		out, err := command(t, args).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) || strings.Count(string(out), "\n") > 2 || strings.Contains(string(out), "hunter2") {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
	}
}

func TestARequestGoesThroughTheProxyThatTheStatisticsGoThrough(t *testing.T) {
	r := start(t)
	var passed atomic.Int64
	proxy := roundRobin(t, &passed, r)
	out, stderr, err := runLoad(t, "-n 20 --url http://fleet.example", "HTTP_PROXY="+proxy.URL, "NO_PROXY=")
	if err != nil || passed.Load() != 23 || !strings.Contains(out, "Queries without it") {
		t.Errorf("%v, %d requests\n%s%s", err, passed.Load(), out, stderr)
	}
}

func TestATerminalMayBeAsNarrowAsItLikes(t *testing.T) {
	r := start(t)
	cmd := command(t, "load -n 4 --url "+r.url)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 1, Cols: 1})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, _ = out.ReadFrom(terminal) // ends with an error when the program does
	_ = terminal.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "Latency avg") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestOnlyWhatIsAllIsAHundredPercent(t *testing.T) {
	for want, of := range map[string][2]int64{"0.0%": {0, 0}, "50.0%": {1, 2}, "99.9%": {99_999, 100_000}, "100.0%": {7, 7}} {
		if got := percent(of[0], of[1]); got != want {
			t.Errorf("%d of %d is %s, want %s", of[0], of[1], got, want)
		}
	}
}
