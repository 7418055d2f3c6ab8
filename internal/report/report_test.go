package report_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/html"

	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/report"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const hostile = `</pre></title><script>alert(1)</script><img src=x onerror=alert(1)>"'&`

func result(scale int) *load.Result {
	d := func(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond) * float64(scale)) }
	return &load.Result{
		Requests: 10 * scale, OK: 8 * scale, Failed: 2 * scale, Duration: d(1234.5),
		Latency:       load.Latency{Average: d(100.5), P50: d(90), P95: d(180), P99: d(199.9), Max: d(200)},
		Statuses:      map[int]int{200: 8 * scale, 503: 2 * scale},
		Errors:        map[string]int{"status 503": 2 * scale},
		Replicas:      map[string]int{"replica-1": 10 * scale},
		Roles:         map[string]int{"leader": scale},
		Histogram:     []load.Bucket{{From: 0, To: d(100), Count: 7 * scale}, {From: d(100), To: d(200), Count: 3 * scale}},
		Timeline:      []load.Interval{{Start: 0, OK: 5 * scale, Failed: 2 * scale, Average: d(100), Max: d(150)}, {Start: d(1000), OK: 3 * scale, Average: d(101), Max: d(200)}},
		IntervalWidth: d(1000),
	}
}

// sample returns a report with the given text in every field that may hold text.
func sample(text string) *report.Report {
	queries, more := int64(1000), int64(1)
	fleet := &load.Stats{Scope: text, Replica: text, Mode: text}
	fleet.Tiers.Local = &load.TierStats{Requests: 101, Leaders: 102, Followers: 103}
	fleet.Tiers.Distributed = &load.TierStats{Requests: 104, Leaders: 105, Followers: 106, Cached: 107, Fallbacks: 108, Takeovers: 109, LeaseLost: 110, RedisErrors: 111, Unasked: 112}
	fleet.Shadow = &load.ShadowStats{
		Requests: 1000, QuerySeconds: 500, Local: load.ShadowTier{Executions: 400, QuerySeconds: 200},
		Distributed: &load.ShadowTier{Executions: 100, ExecutionsError: 10, QuerySeconds: 50, SecondsError: 5},
		Hottest:     []load.ShadowKey{{Key: text, Requests: 600, Local: 200, Distributed: 20}},
	}
	odd := result(1)
	for _, labels := range []map[string]int{odd.Errors, odd.Replicas, odd.Roles} {
		labels[text] = 1
	}
	return &report.Report{
		Title: text, Command: text, Begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Took: time.Minute,
		Setup: []report.Fact{{Name: text, Value: text}}, Machine: []report.Fact{{Name: text, Value: text}},
		Runs: []report.Run{
			{Name: text, Result: odd, Queries: &queries, Counter: text, Fleet: fleet, Verdict: text, Wrong: true},
			{Name: "distributed", Result: result(2), Queries: &more, Verdict: "as it should"},
		},
	}
}

func parse(t *testing.T, r *report.Report) (*html.Node, string) {
	t.Helper()
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		t.Fatal(err)
	}
	page := b.String()
	root, err := html.Parse(&b)
	if err != nil {
		t.Fatal(err)
	}
	return root, page
}

func attribute(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var s strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			s.WriteString(d.Data)
		}
	}
	return s.String()
}

// find returns the elements with a tag and, unless key is empty, with an attribute.
func find(root *html.Node, tag, key, value string) []*html.Node {
	var found []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode && n.Data == tag && (key == "" || attribute(n, key) == value) {
			found = append(found, n)
		}
	}
	return found
}

// decodedRun is a run in the report's JSON.
type decodedRun struct {
	Queries float64 `json:"database_queries"`
	Result  struct {
		Requests  float64            `json:"requests"`
		OK        float64            `json:"ok"`
		Failed    float64            `json:"failed"`
		Duration  float64            `json:"duration_ms"`
		PerSecond float64            `json:"requests_per_second"`
		Latency   map[string]float64 `json:"latency_ms"`
		Histogram []struct {
			From  float64 `json:"from_ms"`
			To    float64 `json:"to_ms"`
			Count int     `json:"count"`
		} `json:"latency_histogram"`
		Timeline []struct {
			OK, Failed int
			Max        float64 `json:"max_ms"`
		} `json:"timeline"`
	}
}

func TestThePageHasTheFiguresOfTheJSON(t *testing.T) {
	r := sample("off")
	root, _ := parse(t, r)
	shown := text(find(root, "pre", "id", "json")[0])
	own, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var onPage bytes.Buffer
	if err := json.Compact(&onPage, []byte(shown)); err != nil || onPage.String() != string(own) {
		t.Errorf("the page's JSON is not the report's: %v\n%s\n%s", err, onPage.String(), own)
	}
	var decoded struct{ Runs []decodedRun }
	if err := json.Unmarshal([]byte(shown), &decoded); err != nil {
		t.Fatal(err)
	}
	for i, run := range decoded.Runs {
		expectFigures(t, root, i, run)
		charts := find(root, "svg", "", "")[3+2*i:] // after the three comparisons
		var titles []string
		for _, b := range run.Result.Histogram {
			titles = append(titles, fmt.Sprintf("%.1f ms to %.1f ms: %d", b.From, b.To, b.Count))
		}
		expectTitles(t, charts[0], titles)
		titles = nil
		for _, s := range run.Result.Timeline {
			titles = append(titles, fmt.Sprintf("%d right, %d failed, average * slowest %.1f ms", s.OK, s.Failed, s.Max))
		}
		expectTitles(t, charts[1], titles)
	}
	for n := 101; n <= 112; n++ {
		if page := text(root); !strings.Contains(page, strconv.Itoa(n)) {
			t.Errorf("the tiers' count %d is not on the page", n)
		}
	}
}

// expectFigures fails the test unless the page's table shows the figures of a run.
func expectFigures(t *testing.T, root *html.Node, i int, run decodedRun) {
	t.Helper()
	want := map[string]float64{
		"database_queries": run.Queries, "requests": run.Result.Requests, "ok": run.Result.OK, "failed": run.Result.Failed,
		"duration_ms": run.Result.Duration, "requests_per_second": run.Result.PerSecond,
	}
	maps.Copy(want, run.Result.Latency)
	if len(want) != 11 {
		t.Fatalf("figures %v", want)
	}
	number := regexp.MustCompile(`^[\d.]+`)
	for name, v := range want {
		shown := text(find(root, "td", "data-is", name)[i])
		if got, err := strconv.ParseFloat(number.FindString(shown), 64); err != nil || got < v-0.0501 || got > v+0.0501 {
			t.Errorf("run %d: %s is %q on the page, %v in the JSON", i, name, shown, v)
		}
	}
}

// expectTitles compares the titles of a chart's columns. In want, * matches any text.
func expectTitles(t *testing.T, chart *html.Node, want []string) {
	t.Helper()
	titles := find(chart, "title", "", "")
	if len(titles) != len(want) {
		t.Errorf("%d columns, want %d", len(titles), len(want))
		return
	}
	for i, title := range titles {
		before, after, _ := strings.Cut(want[i], "*")
		if got := text(title); !strings.Contains(got, before) || !strings.Contains(got, after) {
			t.Errorf("a column says %q, want %q", got, want[i])
		}
	}
}

func TestColumnsAreAsHighAsTheirCounts(t *testing.T) {
	root, _ := parse(t, sample("off"))
	charts := find(root, "svg", "", "")
	height := func(n *html.Node) float64 {
		h, err := strconv.ParseFloat(attribute(n, "height"), 64)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	columns := find(charts[3], "rect", "class", "column")
	if len(columns) != 2 || height(columns[0]) != 160 || height(columns[1]) != 68.57 { // 7 and 3 of 7
		t.Errorf("%d columns, %v", len(columns), columns)
	}
	if bad := find(charts[4], "rect", "class", "bad"); len(bad) != 1 || height(bad[0]) != 45.71 { // 2 of 7
		t.Errorf("%d red columns", len(bad))
	}
}

func TestHostileTextStaysText(t *testing.T) {
	root, page := parse(t, sample(hostile))
	if strings.Contains(page, hostile) || len(find(root, "img", "", "")) != 0 {
		t.Error("markup came through")
	}
	if shown := text(root); strings.Count(shown, hostile) < 10 {
		t.Errorf("the text is there %d times", strings.Count(shown, hostile))
	}
	tags := map[string]bool{}
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			tags[n.Data] = true
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "src" || a.Key == "href" || a.Key == "style" {
					t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
				}
			}
		}
	}
	for _, tag := range []string{"script", "link", "iframe", "object", "image", "use"} {
		if tags[tag] {
			t.Errorf("the page has <%s>", tag)
		}
	}
}

func TestThePageLoadsNothing(t *testing.T) {
	root, page := parse(t, sample("plain"))
	for _, address := range []string{"http:", "https:", "//", "url(", "@import"} {
		if strings.Contains(page, address) {
			t.Errorf("the page has %q", address)
		}
	}
	policy := attribute(find(root, "meta", "http-equiv", "Content-Security-Policy")[0], "content")
	styles := find(root, "style", "", "")
	if len(styles) != 1 {
		t.Fatalf("%d style elements", len(styles))
	}
	sum := sha256.Sum256([]byte(text(styles[0])))
	if want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; policy != want {
		t.Errorf("policy %q, want %q", policy, want)
	}
	if !strings.Contains(page, "color-scheme: light dark") {
		t.Error("it is not for light and dark")
	}
}

func TestARunWithoutAnswersOrCountsIsReported(t *testing.T) {
	r := sample("empty")
	r.Runs = []report.Run{{Name: "empty", Result: &load.Result{}, NotKnown: "replica-2 was started anew <during> the load"}}
	root, page := parse(t, r)
	var decoded struct {
		Runs []struct {
			NotKnown string `json:"counts_not_known"`
		}
	}
	if err := json.Unmarshal([]byte(text(find(root, "pre", "id", "json")[0])), &decoded); err != nil || decoded.Runs[0].NotKnown != r.Runs[0].NotKnown {
		t.Errorf("%v, %+v", err, decoded)
	}
	if reasons := find(root, "p", "class", "soft not-known"); len(reasons) != 1 || !strings.Contains(text(reasons[0]), r.Runs[0].NotKnown) {
		t.Errorf("the reason is on the page %d times", len(reasons))
	}
	if got := text(find(root, "td", "data-is", "database_queries")[0]); got != "not known" || strings.Contains(page, "NaN") || strings.Contains(page, "Inf") {
		t.Errorf("%q", got)
	}
}

func TestABrowserShowsTheReportWithItsStyle(t *testing.T) {
	r := sample("off")
	path := filepath.Join(t.TempDir(), "out.html")
	if err := write(t, path, r); err != nil {
		t.Fatal(err)
	}
	b := browserrig.StartTest(t)
	p, err := b.Open((&url.URL{Scheme: "file", Path: path}).String(), browserrig.View{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	browserrig.WaitFor(t, p, "document.readyState === 'complete'")
	// A page without its style would have other values.
	for property, want := range map[string]string{"max-width": "1024px", "background-color": "rgb(255, 255, 255)", "padding-top": "32px"} {
		got := browserrig.Value[string](t, p, fmt.Sprintf("getComputedStyle(document.body).getPropertyValue(%q)", property))
		if got != want {
			t.Errorf("the page's %s is %q, want %q", property, got, want)
		}
	}
	figures := browserrig.Value[map[string][]string](t, p, `[...document.querySelectorAll('#figures td')].reduce(
		(all, cell) => ({ ...all, [cell.dataset.is]: [...(all[cell.dataset.is] ?? []), cell.innerText] }), {})`)
	for i, run := range r.Runs {
		ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
		result := run.Result
		for name, want := range map[string]string{
			"database_queries": strconv.FormatInt(*run.Queries, 10), "requests": strconv.Itoa(result.Requests), "ok": strconv.Itoa(result.OK),
			"failed": strconv.Itoa(result.Failed), "duration_ms": ms(result.Duration), "requests_per_second": fmt.Sprintf("%.1f", result.PerSecond()),
			"average": ms(result.Latency.Average), "p50": ms(result.Latency.P50), "p95": ms(result.Latency.P95), "p99": ms(result.Latency.P99), "max": ms(result.Latency.Max),
		} {
			if got := figures[name]; len(got) != len(r.Runs) || got[i] != want {
				t.Errorf("run %d: %s is %q, want %q", i, name, got, want)
			}
		}
	}
	for _, c := range p.ConsoleErrors() {
		t.Errorf("the browser complains: %v", c)
	}
}

func TestMachineIsDescribed(t *testing.T) {
	facts := fmt.Sprint(report.Machine("v1.2.3"))
	for _, part := range []string{"System", "Processors", "v1.2.3", "go1."} {
		if !strings.Contains(facts, part) {
			t.Errorf("%s is not in %s", part, facts)
		}
	}
}

func TestWriteReturnsTheWritersError(t *testing.T) {
	r, w := io.Pipe()
	_ = r.Close()
	if err := sample("x").Write(w); err == nil {
		t.Error("no error")
	}
}
