package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/load"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
	"github.com/fleetcall/fleetcall/internal/rig/postgresrig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func expectNoConsoleErrors(t *testing.T, p *browserrig.Page, source string) {
	t.Helper()
	for _, c := range p.ConsoleErrors() {
		if source == "" || c.Source != source {
			t.Errorf("the browser complains: %v", c)
		}
	}
}

const isLive = "document.querySelector('#connection').dataset.state === 'live'"

func TestThePageOfARealFleet(t *testing.T) {
	t.Parallel()
	pg := database(t)
	redis := redisrig.Start(t)
	// The query must last until a snapshot shows which replica leads.
	f := start(t, setup{mode: "distributed", replicas: 3, postgres: pg, redisURL: redis.URL(), env: []string{"QUERY_DELAY=5s"}})
	b := browserrig.StartTest(t)
	p, err := b.Open(f.URL()+"/", browserrig.View{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	browserrig.WaitFor(t, p, isLive)
	browserrig.WaitFor(t, p, "document.querySelectorAll('#replicas-table tbody tr').length === 3")
	pg.ResetQueries()

	aBurstByTheKeyboardAlone(t, p)
	theBurstAsItWas(t, f, p, pg)
	theChartsHaveTheBurst(t, p)
	theViews(t, p)
	for _, name := range browserrig.Value[[]string](t, p, "performance.getEntriesByType('resource').map((e) => e.name)") {
		if !strings.HasPrefix(name, f.URL()+"/") {
			t.Errorf("the page loads %s", name)
		}
	}
	expectNoConsoleErrors(t, p, "")
	aReplicaDiesAndReturns(t, f, p)
}

// aBurstByTheKeyboardAlone moves the focus from the top of the page to the button.
func aBurstByTheKeyboardAlone(t *testing.T, p *browserrig.Page) {
	t.Helper()
	focused := func() string {
		return browserrig.Value[string](t, p, "document.activeElement.id || document.activeElement.name || document.activeElement.textContent")
	}
	press := func(keys string) {
		t.Helper()
		if err := p.Press(keys); err != nil {
			t.Fatal(err)
		}
	}
	press("\t")
	if got := focused(); got != "Skip to the content" {
		t.Errorf("the first stop is %q", got)
	}
	press("\r")
	browserrig.WaitFor(t, p, "document.activeElement.id === 'main'")
	for stops := 0; focused() != "requests"; stops++ {
		if stops > 10 {
			t.Fatalf("the field for the number of requests is not reached: at %q", focused())
		}
		press("\t")
		if outline := browserrig.Value[string](t, p, "getComputedStyle(document.activeElement).outlineStyle"); outline == "none" {
			t.Errorf("nothing shows that %q has the focus", focused())
		}
	}
	press("100\t") // the Tab key selects the text of the field that it moves to
	if got := focused(); got != "burst-button" {
		t.Fatalf("after the field comes %q", got)
	}
	press("\r")
	browserrig.WaitFor(t, p, "document.querySelector('#leases-table tbody th')?.textContent === 'product:1'")
	leads := browserrig.Value[string](t, p, "document.querySelector('#leases-table tbody td').textContent")
	browserrig.WaitFor(t, p, "document.querySelector('#burst-result').textContent.includes('→')")
	if steps := browserrig.Value[string](t, p, "document.querySelector('#steps').textContent"); !strings.Contains(steps, leads+" gets it and leads") {
		t.Errorf("%s held the lease, and the steps are %q", leads, steps)
	}
	if got := focused(); got != "burst-button" {
		t.Errorf("the focus has gone to %q", got)
	}
	if !browserrig.Value[bool](t, p, "document.querySelector('#steps [aria-current]') !== null") {
		t.Error("the picture does not move")
	}
}

// theBurstAsItWas compares the page with PostgreSQL's log and /stats.
func theBurstAsItWas(t *testing.T, f *fleet.Fleet, p *browserrig.Page, pg *postgresrig.Server) {
	t.Helper()
	if n := pg.Queries(); n != 1 {
		t.Errorf("PostgreSQL saw %d queries, want 1", n)
	}
	words := browserrig.Value[string](t, p, "document.querySelector('#burst-result').textContent")
	if !strings.HasPrefix(words, "100 requests → 3 flights → 1 query; 99 queries prevented.") {
		t.Errorf("the page says %q", words)
	}
	if says := browserrig.Value[string](t, p, "document.querySelector('#picture svg').getAttribute('aria-label')"); says != "100 requests became 3 flights and 1 query." {
		t.Errorf("the picture is of %q", says)
	}
	if balancer := browserrig.Value[string](t, p, "document.querySelector('#picture .name').textContent"); balancer != "nginx" {
		t.Errorf("the balancer in the picture is %q", balancer)
	}
	if drawn := browserrig.Value[string](t, p, "[...document.querySelectorAll('#picture text')].map((e) => e.textContent).join('|')"); !strings.Contains(drawn, "|Database|1 query") || strings.Count(drawn, "remote follower") != 2 {
		t.Errorf("in the picture is written %q", drawn)
	}
	browserrig.Value[any](t, p, "document.querySelector('#calls').open = true")
	browserrig.WaitFor(t, p, "document.querySelectorAll('#calls tbody tr').length === 100")
	roles := browserrig.Value[map[string]int](t, p, `[...document.querySelectorAll('#calls tbody td:nth-child(3)')].reduce((sum, e) => ({ ...sum, [e.textContent]: (sum[e.textContent] ?? 0) + 1 }), {})`)
	if roles["leader"] != 1 || roles["remote follower"] != 2 || roles["local follower"] != 97 {
		t.Errorf("the table has the roles %v", roles)
	}

	browserrig.WaitFor(t, p, "document.querySelector('[data-total=queries_prevented]').textContent === '99'")
	var stats struct {
		load.Stats
		TotalRequests    int64                   `json:"total_requests"`
		QueriesPrevented int64                   `json:"queries_prevented"`
		HitRate          string                  `json:"hit_rate"`
		Database         struct{ Queries int64 } `json:"database"`
		Replicas         []struct {
			Replica string
			Tiers   struct{ Local struct{ Requests int64 } }
		} `json:"replicas"`
	}
	mustGet(t, f.URL()+"/stats?scope=fleet").decode(t, &stats)
	shown := browserrig.Value[[]string](t, p, "[...document.querySelectorAll('[data-total]')].map((e) => e.textContent)")
	if want := fmt.Sprintf("[%d %d %d %s]", stats.TotalRequests, stats.Database.Queries, stats.QueriesPrevented, stats.HitRate); fmt.Sprint(shown) != want {
		t.Errorf("the page has the totals %v, /stats %s", shown, want)
	}
	for _, r := range stats.Replicas {
		sum := browserrig.Value[int64](t, p, fmt.Sprintf(`[...document.querySelectorAll('tr[data-replica="%s"] .chip b')].reduce((sum, e) => sum + Number(e.textContent), 0)`, r.Replica))
		if sum != r.Tiers.Local.Requests {
			t.Errorf("%s: the page counts %d requests by role, /stats %d", r.Replica, sum, r.Tiers.Local.Requests)
		}
	}
	browserrig.WaitFor(t, p, "document.querySelector('#hot-table tbody th')?.textContent === 'product:1'")
}

// theChartsHaveTheBurst checks that the charts show the burst, and that the text beside
// them describes the same.
func theChartsHaveTheBurst(t *testing.T, p *browserrig.Page) {
	t.Helper()
	const latency = "document.querySelector('#latency-legend').textContent"
	browserrig.WaitFor(t, p, latency+".includes('remote follower')")
	drawn := browserrig.Value[map[string]int](t, p, `(() => {
		const rgb = (name) => {
			const probe = document.body.appendChild(document.createElement('span'));
			probe.style.color = 'var(--' + name + ')';
			const colour = getComputedStyle(probe).color.match(/\d+/g).map(Number);
			probe.remove();
			return colour;
		};
		const pixels = (chart, ...names) => {
			const canvas = document.querySelector(chart + ' canvas');
			const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
			copy.drawImage(canvas, 0, 0);
			const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
			const colours = names.map(rgb);
			let n = 0;
			for (let i = 0; i < data.length; i += 4) {
				if (data[i + 3] > 200 && colours.some(([r, g, b]) => Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 24)) n++;
			}
			return n;
		};
		return {
			requests: pixels('#rates-chart', 'requests'),
			prevented: pixels('#rates-chart', 'prevented'),
			// All of them waited for the same query, so one dot covers the others.
			latency: pixels('#latency-chart', 'leader', 'local-follower', 'remote-follower'),
		};
	})()`)
	for line, pixels := range drawn {
		if pixels < 10 {
			t.Errorf("of the %s, %d pixels are drawn", line, pixels)
		}
	}
	words := browserrig.Value[string](t, p, latency)
	// The query takes two seconds, and followers arrive shortly after it has begun.
	for _, role := range []string{"leader", "local follower", "remote follower"} {
		if !regexp.MustCompile(role+` p50 [2-9],\d{3} ms`).MatchString(words) && !regexp.MustCompile(role+` p50 1,[5-9]\d\d ms`).MatchString(words) {
			t.Errorf("the legend has no latency of a %s: %q", role, words)
		}
	}
	if says := browserrig.Value[string](t, p, "document.querySelector('#latency-words').textContent"); !strings.Contains(says, "for the 3 roles") {
		t.Errorf("the words beside the chart are %q", says)
	}
	browserrig.Value[any](t, p, "document.querySelector('#latency-table').closest('details').open = true")
	browserrig.WaitFor(t, p, "document.querySelectorAll('#latency-table tbody tr').length >= 3")
	requests := browserrig.Value[map[string]int](t, p, `[...document.querySelectorAll('#latency-table tbody tr')].map((row) => row.cells).reduce((sum, cells) => ({ ...sum, [cells[1].textContent]: (sum[cells[1].textContent] ?? 0) + Number(cells[2].textContent) }), {})`)
	if requests["leader"] != 1 || requests["remote follower"] != 2 || requests["local follower"] != 97 {
		t.Errorf("the table counts %v", requests)
	}
}

// theViews checks the page in light and dark, on a phone, and with reduced motion.
func theViews(t *testing.T, p *browserrig.Page) {
	t.Helper()
	look := func(v browserrig.View) {
		t.Helper()
		if err := p.SetView(v); err != nil {
			t.Fatal(err)
		}
	}
	colours := map[string]bool{}
	for _, dark := range []bool{false, true} {
		look(browserrig.View{Dark: dark})
		colours[browserrig.Value[string](t, p, "getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color")] = true
	}
	if len(colours) != 2 {
		t.Errorf("light and dark are the same: %v", colours)
	}
	look(browserrig.View{Width: 360, Height: 780})
	browserrig.WaitFor(t, p, "document.querySelector('#picture svg').classList.contains('tall')")
	browserrig.Value[any](t, p, "document.querySelectorAll('details').forEach((d) => { d.open = true })")
	if over := browserrig.Value[[]string](t, p, `[...document.querySelectorAll('body *')]
		.filter((e) => e.getBoundingClientRect().right > 361 && !e.closest('.scroll, .unseen, .skip, svg, thead') && e.checkVisibility())
		.map((e) => e.tagName + '#' + e.id + '.' + e.className)`); len(over) != 0 {
		t.Errorf("at 360 pixels these reach out: %v", over)
	}
	if width := browserrig.Value[int](t, p, "document.documentElement.scrollWidth"); width != 360 {
		t.Errorf("at 360 pixels the page is %d wide", width)
	}
	look(browserrig.View{ReducedMotion: true})
	if err := p.Click("#burst-button"); err != nil {
		t.Fatal(err)
	}
	browserrig.WaitFor(t, p, "document.querySelector('#burst-button').getAttribute('aria-disabled') === 'true'")
	browserrig.WaitFor(t, p, "document.querySelector('#burst-button').getAttribute('aria-disabled') === 'false'")
	if moves := browserrig.Value[bool](t, p, "document.querySelector('#steps [aria-current]') !== null || document.querySelector('#replay').checkVisibility()"); moves {
		t.Error("the picture moves though less motion is preferred")
	}
	look(browserrig.View{})
}

// aReplicaDiesAndReturns kills the replica that sends the page its events.
func aReplicaDiesAndReturns(t *testing.T, f *fleet.Fleet, p *browserrig.Page) {
	t.Helper()
	browserrig.WaitFor(t, p, isLive)
	feeding := strings.TrimPrefix(browserrig.Value[string](t, p, "document.querySelector('#connection').textContent"), "live, through ")
	browserrig.Value[any](t, p, "window.said = []; new MutationObserver(() => said.push(document.querySelector('#connection').textContent)).observe(document.querySelector('#connection'), { childList: true })")
	var dying *fleet.Replica
	for _, r := range f.Replicas() {
		if r.ID == feeding {
			dying = r
		}
	}
	if dying == nil {
		t.Fatalf("the page is fed by %q", feeding)
	}
	// This is the number of seconds in the chart. The table has only the last ten.
	const seconds = `(() => {
		const [, minutes, seconds] = document.querySelector('#rates-words').textContent.match(/in the last (?:(\d+) min )?(\d+) s/);
		return 60 * Number(minutes ?? 0) + Number(seconds);
	})()`
	browserrig.WaitFor(t, p, seconds+" >= 10")
	before, counting := browserrig.Value[int](t, p, seconds), time.Now()
	dying.Kill()
	row := fmt.Sprintf(`document.querySelector('tr[data-replica="%s"]').dataset.state`, feeding)
	browserrig.WaitFor(t, p, row+" === 'gone' && "+isLive)
	if said := browserrig.Value[[]string](t, p, "said"); len(said) < 2 || said[0] != "reconnecting" || !strings.HasPrefix(said[len(said)-1], "live, through ") || strings.HasSuffix(said[len(said)-1], feeding) {
		t.Errorf("the page said %q", said)
	}
	if _, err := f.Restart(t.Context(), dying); err != nil {
		t.Fatal(err)
	}
	browserrig.WaitFor(t, p, row+" === 'live'")
	const requests = "Number(document.querySelector('[data-total=total_requests]').textContent.replaceAll(',', ''))"
	counted := browserrig.Value[int](t, p, requests)
	if r := sendBurst(t, f, 60); r.OK != 60 {
		t.Error("the fleet does not answer")
	}
	browserrig.WaitFor(t, p, fmt.Sprintf("%s === %d", requests, counted+60))
	if text := browserrig.Value[string](t, p, "document.querySelector('#rates-table').textContent"); strings.ContainsAny(text, "-−") {
		t.Errorf("a rate is negative: %q", text)
	}
	passed := int(time.Since(counting).Seconds())
	if after := browserrig.Value[int](t, p, seconds); after < before+passed-5 { // a snapshot or two may be missing still
		t.Errorf("the chart had %d seconds, and has %d after %d more", before, after, passed)
	}
	expectNoConsoleErrors(t, p, "network") // caused by the killed replica
}

// The test of the page covers nginx. The built-in balancer must pass on each event
// without delay too.
func TestTheBuiltInBalancerPassesEventsOnAndReplicasStopInTime(t *testing.T) {
	t.Parallel()
	f := start(t, setup{mode: "distributed", replicas: 3, redisURL: redisrig.Start(t).URL(), balancer: fleet.BalancerBuiltin, env: []string{"SHUTDOWN_GRACE=2m"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL()+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	seen := 0
	for seen < 3 && lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		seen++
		var snap struct{ Replicas []json.RawMessage }
		if err := json.Unmarshal([]byte(data), &snap); err != nil || len(snap.Replicas) != 3 {
			t.Errorf("%d replicas, %v", len(snap.Replicas), err)
		}
	}
	if seen != 3 {
		t.Errorf("%d events within a minute", seen)
	}
	begin := time.Now()
	for _, r := range f.Replicas() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	}
	if took := time.Since(begin); took > time.Minute { // their grace is twice as long
		t.Errorf("with a watcher, the replicas took %v to stop", took)
	}
	for lines.Scan() { // until the stream ends
	}
}

// An operator who watches the channels of Redis does not count as a replica. A replica
// that hangs counts, but the burst does not wait for it.
func TestABurstIsAnsweredWhileAReplicaHangsAndAnOperatorWatchesRedis(t *testing.T) {
	t.Parallel()
	redis := redisrig.Start(t)
	f := start(t, setup{mode: "distributed", replicas: 3, redisURL: redis.URL(), env: []string{"QUERY_DELAY=3s"}}) // both shares begin within it
	watching := redis.Client().PSubscribe(t.Context(), "fleetcall:*")
	defer func() { _ = watching.Close() }()
	if _, err := watching.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	var stats struct {
		Missing  int
		Replicas []json.RawMessage
	}
	mustGet(t, f.Replicas()[0].URL+"/stats?scope=fleet").decode(t, &stats)
	if stats.Missing != 0 || len(stats.Replicas) != 3 {
		t.Errorf("while somebody watches: %d replicas, %d missing", len(stats.Replicas), stats.Missing)
	}
	frozen := f.Replicas()[2]
	if err := frozen.Freeze(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := frozen.Thaw(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.Replicas()[0].URL+"/burst", strings.NewReader(`{"product":1,"requests":30}`))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var burst struct {
		Requests, Queries int
		Note              string
		Replicas          []json.RawMessage
	}
	if err := json.NewDecoder(resp.Body).Decode(&burst); err != nil || burst.Requests != 30 || burst.Queries != 1 || len(burst.Replicas) != 2 || burst.Note == "" {
		t.Errorf("%d requests and %d queries of %d replicas, %q, %v", burst.Requests, burst.Queries, len(burst.Replicas), burst.Note, err)
	}
	if took := time.Since(begin); took > 20*time.Second { // a burst waits 30 s for those that take part
		t.Errorf("it took %v", took)
	}
}
