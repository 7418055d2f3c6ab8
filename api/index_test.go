package api_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/api"
)

func TestIndexIsJSONForProgramsAndAPageForBrowsers(t *testing.T) {
	f := start(t, &store{}, func(c *api.Config) { c.Replica = "<b>&replica" })
	for _, accept := range []string{"", "*/*", "application/json", "application/json, text/html;q=0.5", "garbage;;;"} {
		a := f.send(t, http.MethodGet, "/", http.Header{"Accept": {accept}})
		if got := decode[api.Index](t, a); a.status != http.StatusOK || len(got.Endpoints) < 6 || got.Replica != "<b>&replica" {
			t.Errorf("Accept %q: %d %+v", accept, a.status, got)
		}
	}
	for _, accept := range []string{"text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"} {
		a := f.send(t, http.MethodGet, "/", http.Header{"Accept": {accept}})
		if a.status != http.StatusOK || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || a.header.Get("Vary") != "Accept" {
			t.Errorf("Accept %q: %d %v", accept, a.status, a.header)
		}
		if !strings.Contains(a.body, "/product/coalesced/{id}") || strings.Contains(a.body, "<b>&replica") || !strings.Contains(a.body, "&lt;b&gt;&amp;replica") {
			t.Errorf("the page:\n%s", a.body)
		}
		if a.header.Get("Content-Security-Policy") != pagePolicy {
			t.Errorf("policy %q", a.header.Get("Content-Security-Policy"))
		}
	}
}

func TestHEADAnswersAsGETWithoutABody(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, path := range []string{"/", "/health", "/stats", "/livez", "/readyz", "/product/coalesced/1"} {
		if a := f.send(t, http.MethodHead, path, nil); a.status != http.StatusOK || a.body != "" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

func TestUnknownRoutesAndMethodsAreProblems(t *testing.T) {
	f := start(t, &store{}, nil)
	for _, path := range []string{"/nothing", "/product/normal", "/product/other/1", "/stats/reset/x"} {
		expectProblem(t, f.get(t, path), http.StatusNotFound)
	}
	for _, c := range []struct{ method, path, allow string }{
		{"POST", "/stats", "GET"}, {"DELETE", "/product/coalesced/1", "GET"}, {"GET", "/stats/reset", "POST"}, {"PUT", "/", "GET"},
	} {
		a := f.send(t, c.method, c.path, nil)
		expectProblem(t, a, http.StatusMethodNotAllowed)
		if !strings.Contains(a.header.Get("Allow"), c.allow) {
			t.Errorf("%s %s: Allow %q", c.method, c.path, a.header.Get("Allow"))
		}
	}
}
