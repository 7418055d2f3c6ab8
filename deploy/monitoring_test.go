package deploy_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/deploy"
)

func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("promtool is not installed; on Debian or Ubuntu: sudo apt-get install -y prometheus (or: make setup)")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = "prometheus"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPrometheusAcceptsTheConfigurationAndTheRules(t *testing.T) {
	promtool(t, "check", "config", "prometheus.yml")
	promtool(t, "check", "rules", "alerts.yml")
}

func TestEveryAlertFiresWhenItShouldAndStaysSilentElse(t *testing.T) {
	promtool(t, "test", "rules", "alerts_test.yml")
	tests := string(read(t, "prometheus/alerts_test.yml"))
	for _, alert := range alerts(t) {
		for _, kind := range []string{"fires", "stays silent"} {
			if !strings.Contains(tests, "name: "+alert.name+" "+kind+"\n") {
				t.Errorf("nothing tests that %s %s", alert.name, kind)
			}
		}
	}
}

type alert struct{ name, text string }

// alerts returns the name and the text of each alerting rule.
func alerts(t *testing.T) (all []alert) {
	t.Helper()
	parts := strings.Split(string(read(t, "prometheus/alerts.yml")), "- alert: ")
	for _, part := range parts[1:] {
		name, _, _ := strings.Cut(part, "\n")
		all = append(all, alert{name, part})
	}
	if len(all) == 0 {
		t.Fatal("there is no alert")
	}
	return all
}

func TestEveryAlertHasARunbook(t *testing.T) {
	manual := string(read(t, "../docs/operating.md"))
	for _, alert := range alerts(t) {
		for _, want := range []string{"severity: ", "summary: ", "description: ", `runbook: "docs/operating.md#` + strings.ToLower(alert.name) + `"`} {
			if !strings.Contains(alert.text, want) {
				t.Errorf("%s lacks %s", alert.name, want)
			}
		}
		_, section, found := strings.Cut(manual, "\n### "+alert.name+"\n")
		section, _, _ = strings.Cut(section, "\n##")
		if !found {
			t.Errorf("docs/operating.md has no section %s", alert.name)
			continue
		}
		for _, part := range []string{"**Means**", "**Confirm**", "**Do**"} {
			if !strings.Contains(section, part) {
				t.Errorf("docs/operating.md: %s lacks %s", alert.name, part)
			}
		}
	}
	for _, found := range regexp.MustCompile(`(?m)^### (Fleetcall\w+)$`).FindAllStringSubmatch(manual, -1) {
		if !strings.Contains(string(read(t, "prometheus/alerts.yml")), "- alert: "+found[1]+"\n") {
			t.Errorf("docs/operating.md explains %s, which is no alert", found[1])
		}
	}
}

func TestPrometheusScrapesTheReplicasOfCompose(t *testing.T) {
	config, compose := string(read(t, "prometheus/prometheus.yml")), string(read(t, "docker-compose.yml"))
	for _, m := range regexp.MustCompile(`(?m)^  (replica-\d):$`).FindAllStringSubmatch(compose, -1) {
		if !strings.Contains(config, "- "+m[1]+":8000\n") {
			t.Errorf("prometheus.yml does not scrape %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`- \./((?:prometheus|grafana)\S*?):`).FindAllStringSubmatch(compose, -1) {
		if _, err := os.Stat(m[1]); err != nil {
			t.Errorf("docker-compose.yml mounts %v", err)
		}
	}
	if n := strings.Count(compose, `profiles: ["monitoring"]`); n != 2 {
		t.Errorf("%d services are in the profile monitoring, want prometheus and grafana", n)
	}
}

func TestTheDashboardIsOfTheProvisionedFolderAndDatasource(t *testing.T) {
	var dashboard struct {
		UID, Title string
		Panels     []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
		}
		Templating struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(read(t, "grafana/dashboards/fleetcall.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.UID == "" || dashboard.Title == "" || len(dashboard.Panels) == 0 || dashboard.Templating.List[0].Type != "datasource" {
		t.Errorf("%+v", dashboard)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q has the id of another, or is too wide: %+v", p.Title, p)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("%q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	if compose := string(read(t, "docker-compose.yml")); !strings.Contains(string(read(t, "grafana/provisioning/dashboards/fleetcall.yml")), "path: /var/lib/grafana/dashboards") ||
		!strings.Contains(compose, "./grafana/dashboards:/var/lib/grafana/dashboards:ro") || !strings.Contains(compose, "./grafana/provisioning:/etc/grafana/provisioning:ro") {
		t.Error("compose does not mount the dashboards where Grafana looks for them")
	}
}

func TestNginxHidesMetricsAndPassesTracesOn(t *testing.T) {
	received := make(chan *http.Request, 10)
	replica := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			received <- r
		}
	}))
	t.Cleanup(replica.Close)
	nginx := startNginx(t, deploy.NginxConf, strings.TrimPrefix(replica.URL, "http://"))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	get := func(path string, header http.Header) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, nginx+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode == http.StatusNotFound && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", path, resp.Header.Get("Content-Type"))
		}
		return resp.StatusCode, string(body)
	}
	for _, path := range []string{"/metrics", "/metrics?name[]=up", "//metrics", "/./metrics", "/%6detrics"} {
		status, body := get(path, nil)
		if status != http.StatusNotFound || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d, %s", path, status, body)
		}
	}
	if n := len(received); n != 0 {
		t.Errorf("%d of them reached a replica", n)
	}
	const parent, state = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=value"
	if status, _ := get("/product/normal/1", http.Header{"Traceparent": {parent}, "Tracestate": {state}}); status != http.StatusOK {
		t.Error(status)
	}
	if r := <-received; r.Header.Get("traceparent") != parent || r.Header.Get("tracestate") != state {
		t.Errorf("a replica gets %v", r.Header)
	}
}
