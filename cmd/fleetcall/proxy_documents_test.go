package main

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/httpproxy"
)

// proxyDocument returns docs/proxy.md.
func proxyDocument(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "proxy.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// firstCells returns the backquoted names in the first cells of the table with this heading.
func firstCells(t *testing.T, text, heading string) (names []string) {
	t.Helper()
	_, table, ok := strings.Cut(text, "| "+heading+" |")
	if !ok {
		t.Fatalf("no table of %s", heading)
	}
	for i, line := range strings.Split(table, "\n") {
		if i < 2 {
			continue
		}
		cell, _, ok := strings.Cut(strings.TrimPrefix(line, "| "), " |")
		if !ok || !strings.HasPrefix(line, "| ") {
			break
		}
		names = append(names, strings.Trim(cell, "`"))
	}
	slices.Sort(names)
	return names
}

func TestTheProxysDocumentHasItsRules(t *testing.T) {
	text := proxyDocument(t)
	yaml := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(text, -1)
	if len(yaml) != 1 {
		t.Fatalf("%d configuration files are shown", len(yaml))
	}
	file := strings.TrimPrefix(rulesFile(t, yaml[0][1]), "--config=")
	if rules, err := httpproxy.ReadRules(file); err != nil || len(rules) != 2 {
		t.Errorf("%+v, %v", rules, err)
	}
	unknown := strings.TrimPrefix(rulesFile(t, "rules:\n- path: /\n  coalese: false\n"), "--config=")
	_, err := httpproxy.ReadRules(unknown)
	if err == nil || !strings.Contains(text, strings.TrimPrefix(err.Error()[:strings.Index(err.Error(), "?")+1], "fleetcall: "+filepath.Dir(unknown)+"/")) {
		t.Errorf("the mistake is refused otherwise: %v", err)
	}
	for _, key := range firstCells(t, text, "key | default | meaning") {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("a rule has no key %s", key)
		}
	}
	_, keys, _ := strings.Cut(err.Error(), "a rule has ")
	keys, _, _ = strings.Cut(keys, ";")
	for key := range strings.SplitSeq(keys, ", ") {
		if !slices.Contains(firstCells(t, text, "key | default | meaning"), key) {
			t.Errorf("the key %s is not documented", key)
		}
	}
}

func TestTheProxysDocumentHasItsProblemsAndMetrics(t *testing.T) {
	text := proxyDocument(t)
	source, err := os.ReadFile(filepath.Join("..", "..", "internal", "httpproxy", "problem.go"))
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	for _, m := range regexp.MustCompile(`problem\.Namespace \+ "([a-z-]+)"`).FindAllStringSubmatch(string(source), -1) {
		problems = append(problems, m[1])
	}
	slices.Sort(problems)
	if got := firstCells(t, text, "type `urn:fleetcall:problem:…` | status | when"); !slices.Equal(got, problems) {
		t.Errorf("documented problems %q, want %q", got, problems)
	}

	p := startProxy(t, origin(t, echoing))
	p.expect(t, "/a", http.StatusOK)
	p.send(t, http.MethodPost, "/a")
	down := startProxy(t, rawOrigin(t, ""))
	down.send(t, http.MethodGet, "/a")
	var served []string
	for _, proxy := range []proxying{p, down} {
		_, _, body := proxy.admin.send(t, http.MethodGet, "/metrics")
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (fleetcall_(?:proxy|upstream)_\w+) `).FindAllStringSubmatch(string(body), -1) {
			served = append(served, m[1])
		}
		if strings.Contains(string(body), "fleetcall_database") {
			t.Error("a proxy has metrics of a database")
		}
	}
	slices.Sort(served)
	served = slices.Compact(served)
	if got := firstCells(t, text, "metric | type | labels | meaning"); !slices.Equal(got, served) {
		t.Errorf("documented metrics %q, served %q", got, served)
	}
}

func TestAProxysSettingsAreCheckedBeforeItStarts(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"", "--upstream"},
		{"--upstream=127.0.0.1:8001", "--upstream (UPSTREAM)"},
		{"--upstream=ftp://a", "--upstream (UPSTREAM)"},
		{"--upstream=http://a/?b", "--upstream (UPSTREAM)"},
		{"--upstream=http://u:hunter2@a", "--upstream (UPSTREAM)"},
		{"--upstream=http://a --admin=8081", "--admin (ADMIN_ADDR)"},
		{"--upstream=http://a --upstream-timeout=0s", "--upstream-timeout (UPSTREAM_TIMEOUT)"},
		{"--upstream=http://a --upstream-host=http://b", "--upstream-host (UPSTREAM_HOST)"},
		{"--upstream=http://a --trusted-proxies=nginx", "--trusted-proxies (TRUSTED_PROXIES)"},
		{"--upstream=http://a --tls-cert=a.pem", "--tls-key (TLS_KEY)"},
		{"--upstream=http://a --mode=distributed", "--mode (COALESCE_MODE)"},
		{"--upstream=http://a --listen=8000", "--listen (LISTEN_ADDR)"},
	} {
		_, err := parseCommand(append([]string{"proxy"}, strings.Fields(c.flags)...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, want %s", c.flags, err, c.want)
		}
	}
	for _, flags := range []string{"--upstream=http://a", "--upstream=https://a:8443/base --trusted-proxies=10.0.0.0/8,::1,192.0.2.1"} {
		if _, err := parseCommand(append([]string{"proxy"}, strings.Fields(flags)...)...); err != nil {
			t.Errorf("%q: %v", flags, err)
		}
	}
	bad := fmt.Sprintf("%s/no.pem", t.TempDir())
	c, err := parseCommand("proxy", "--upstream=http://127.0.0.1:1", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--tls-cert="+bad, "--tls-key="+bad)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newProxy(t.Context(), &c.Proxy, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "TLS_CERT") {
		t.Errorf("got %v", err)
	}
}
