package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

// All tests of the page share one browser, because starting it takes a second.
func TestThePageInABrowser(t *testing.T) {
	b := browserrig.StartTest(t)
	for name, test := range map[string]func(*testing.T, *browserrig.Browser){
		"text that looks like markup stays text":          textThatLooksLikeMarkupStaysText,
		"it says when the admin token is needed or wrong": thePageSaysWhenTheAdminTokenIsNeededOrWrong,
		"the burst in each mode and when things go wrong": theBurstInEachModeAndWhenThingsGoWrong,
		"a burst that nobody ran says so":                 aBurstThatNobodyRanSaysSo,
		"a burst that fails is not shown as a success":    aBurstThatFailsIsNotShownAsASuccess,
		"the picture moves unless less motion is wanted":  thePictureMovesUnlessLessMotionIsWanted,
		"pause and end keep the keyboard's focus":         pauseAndEndKeepTheFocus,
		"names in the picture stay apart":                 namesInThePictureStayApart,
		"it comes back after it was refused":              thePageComesBackAfterItWasRefused,
		"rates are never negative":                        ratesAreNeverNegative,
		"what would be saved is shown in mode shadow":     whatWouldBeSavedIsShownInModeShadow,
		"each Redis server is shown with its state":       eachRedisServerIsShownWithItsState,
		"a proxy's page is live":                          theProxysPageIsLive,
		"words can be read on what is behind them":        wordsCanBeRead,
		"the document of the API has its style":           theDocumentHasItsStyle,
	} {
		t.Run(name, func(t *testing.T) { test(t, b) })
	}
}

// If the policy forbade the style, the console and the computed style would show it.
func theDocumentHasItsStyle(t *testing.T, b *browserrig.Browser) {
	p, err := b.Open(start(t, &store{}, nil).url+"/docs", browserrig.View{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	browserrig.WaitFor(t, p, "document.readyState === 'complete'")
	if got, err := browserrig.Eval[string](p, "getComputedStyle(document.querySelector('nav ul')).listStyleType"); err != nil || got != "none" {
		t.Errorf("%v, the list of endpoints has the bullets %q, want none", err, got)
	}
	for _, c := range p.ConsoleErrors() {
		t.Errorf("the browser complains: %v", c)
	}
}

// open opens the page of a server and waits until it is live. Errors in the browser's
// console fail the test.
func open(t *testing.T, b *browserrig.Browser, f *fixture, view browserrig.View) *browserrig.Page {
	t.Helper()
	p, err := b.Open(f.url+"/", view)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range p.ConsoleErrors() {
			if c.Source != "network" { // tests provoke error responses themselves
				t.Errorf("the browser complains: %v", c)
			}
		}
		p.Close()
	})
	browserrig.WaitFor(t, p, "document.querySelector('#connection').dataset.state === 'live'")
	return p
}

// burst clicks on the button, and returns the text with the result.
func burst(t *testing.T, p *browserrig.Page) string {
	t.Helper()
	if err := p.Click("#burst-button"); err != nil {
		t.Fatal(err)
	}
	browserrig.WaitFor(t, p, "document.querySelector('#burst-button').getAttribute('aria-disabled') === 'false'")
	words, err := p.Text("#burst-result")
	if err != nil {
		t.Fatal(err)
	}
	return words
}

func textThatLooksLikeMarkupStaysText(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	const hostile = `<img src=x onerror="document.title='run'">"'&amp;`
	fleet := &concurrentFleet{}
	f := start(t, &store{}, func(c *api.Config) {
		c.Replica, c.Fleet, c.Mode = hostile, fleet, "distributed"
		c.Leases = func() api.Leases {
			return api.Leases{Count: 1, Oldest: []api.Lease{{Key: "<script>document.title='run'</script>", AgeMS: 12}}}
		}
		c.Tiers = func() api.Tiers {
			return api.Tiers{Local: &api.LocalTier{}, Distributed: &api.DistributedTier{
				RedisServers: []api.RedisServer{{Address: "<b>redis</b>", State: "<i>up</i>", Since: 1e300, Why: "<u>why</u>"}}}}
		}
	})
	fleet.servers = []*api.Server{f.Server}
	p := open(t, b, f, browserrig.View{ReducedMotion: true})
	if words := burst(t, p); !strings.Contains(words, "200 requests") {
		t.Error(words)
	}
	browserrig.Value[any](t, p, "document.querySelectorAll('details').forEach((d) => { d.open = true })")
	browserrig.WaitFor(t, p, "document.querySelectorAll('#calls tbody tr').length === 200")
	shown := browserrig.Value[struct{ Title, Row, Lease, Redis, Call, Picture string }](t, p, `({
		Title: document.title,
		Row: document.querySelector('#replicas-table tbody th').textContent,
		Lease: document.querySelector('#leases-table tbody th').textContent,
		Redis: [...document.querySelectorAll('#redis-table tbody :is(th, td):not([data-label=Since])')].map((e) => e.textContent).join(' '),
		Call: document.querySelector('#calls tbody td:nth-child(2)').textContent,
		Picture: document.querySelector('#picture title').textContent,
	})`)
	if shown.Title != "fleetcall · "+hostile || shown.Row != hostile || shown.Call != hostile || shown.Picture != hostile ||
		shown.Lease != "<script>document.title='run'</script>" || shown.Redis != "<b>redis</b> <i>up</i> on "+hostile+": <u>why</u>" {
		t.Errorf("%+v", shown)
	}
	if n := browserrig.Value[int](t, p, "document.querySelectorAll('img').length + document.querySelectorAll('script').length"); n != 3 {
		t.Errorf("%d images and scripts, the page itself has 3", n)
	}
}

func thePageSaysWhenTheAdminTokenIsNeededOrWrong(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	f := start(t, &store{}, func(c *api.Config) { c.AdminToken = "letmein" })
	p := open(t, b, f, browserrig.View{})
	if words := burst(t, p); !strings.Contains(words, "wants its admin token") {
		t.Errorf("without a token: %q", words)
	}
	// The page has moved the focus to the field for the token.
	for _, c := range []struct{ typed, want string }{{"wrong", "is wrong"}, {"\b\b\b\b\bwrōng", "is wrong"}, {"\b\b\b\b\bletmein", "200 requests"}} {
		if err := p.Press(c.typed); err != nil {
			t.Fatal(err)
		}
		if words := burst(t, p); !strings.Contains(words, c.want) {
			t.Errorf("%q: %q, want %q", c.typed, words, c.want)
		}
		browserrig.Value[any](t, p, "document.querySelector('[name=token]').focus()")
	}
	if stored := browserrig.Value[int](t, p, "localStorage.length + sessionStorage.length + document.cookie.length"); stored != 0 {
		t.Error("something is stored")
	}
	free := open(t, b, start(t, &store{}, nil), browserrig.View{})
	if browserrig.Value[bool](t, free, "document.querySelector('[name=token]').checkVisibility()") {
		t.Error("a token is asked for that nobody wants")
	}
}

func theBurstInEachModeAndWhenThingsGoWrong(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	look := func(f *fixture, headline, caption, picture string) {
		t.Helper()
		p := open(t, b, f, browserrig.View{ReducedMotion: true})
		words := burst(t, p)
		steps, err := p.Text("#steps")
		if err != nil {
			t.Fatal(err)
		}
		drawn, err := p.Text("#picture")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(words, headline) || !strings.Contains(steps, caption) || !strings.Contains(drawn, picture) {
			t.Errorf("%q\n%q\n%q\nwant %q, %q, %q", words, steps, drawn, headline, caption, picture)
		}
		p.Close()
	}
	s := &store{}
	s.query = func(ctx context.Context, _ int32) (product.Product, error) {
		s.Sent(ctx)
		return product.Product{ID: 1}, product.Hold(ctx, 2*time.Second) // within which all requests come
	}
	look(start(t, s, func(c *api.Config) { c.Mode, c.Group, c.Tiers = "off", coalesce.Off[product.Product]{}, nil }),
		"200 requests → 200 queries; 0 queries prevented", "Coalescing is off", "200 queries")
	look(start(t, s, nil), "200 requests → 1 flight → 1 query; 199 queries prevented", "There is no distributed tier", "runs the query")

	fleet := &concurrentFleet{deaf: map[int]bool{2: true}}
	all := threeReplicas(t, fleet, s)
	look(all[0], "c did not answer: nobody knows what became of its 66 requests", "spread over 2 replicas", "did not answer")

	look(start(t, failing(product.ErrBusy), nil), "200 failed", "Local tier", "0 queries")
	fleet = &concurrentFleet{}
	broken := start(t, s, func(c *api.Config) { c.Fleet = fleet })
	fleet.servers = []*api.Server{broken.Server}
	fleet.err = errors.New("no Redis")
	look(broken, "Redis cannot be used to ask the others", "one replica", "1 query")
	duringBurst(t, func(f *fixture) {
		p := open(t, b, f, browserrig.View{})
		if words := burst(t, p); !strings.Contains(words, "Another burst is under way") {
			t.Error(words)
		}
		p.Close()
	})
}

// No replica sends such a response, but the page must still show something true.
func aBurstThatNobodyRanSaysSo(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	p := open(t, b, start(t, &store{}, nil), browserrig.View{ReducedMotion: true})
	browserrig.Value[any](t, p, `window.fetch = async () => new Response(JSON.stringify({
		id: 'x', product: 1, requests: 0, mode: 'distributed', took_ms: 1, flights: 0, queries: 0, prevented: 0, failed: 0, unfinished: 0, roles: {},
		replicas: ['a', 'b'].map((replica) => ({ replica, instance: replica, state: 'busy', requests: 100, flights: 0, queries: 0, calls: [] })),
	}))`)
	words := burst(t, p)
	steps, err := p.Text("#steps")
	if err != nil {
		t.Fatal(err)
	}
	if steps != "No replica made any of the requests." || !strings.Contains(words, "a was busy with another burst. b was busy") {
		t.Errorf("%q, %q", words, steps)
	}
}

func aBurstThatFailsIsNotShownAsASuccess(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	for mode, c := range map[string]struct {
		change func(*api.Config)
		steps  string
	}{
		"off":         {func(c *api.Config) { c.Mode, c.Group, c.Tiers = "off", coalesce.Off[product.Product]{}, nil }, "Each caller gets the outcome of its own query."},
		"local":       {func(c *api.Config) { c.Mode = "local" }, "gives the outcome, an error like a result, to all callers of its flight."},
		"distributed": {func(c *api.Config) { c.Mode = "distributed" }, "The outcome comes back, an error like a result: through Redis"},
	} {
		p := open(t, b, start(t, failing(product.ErrUnavailable), c.change), browserrig.View{ReducedMotion: true})
		words := burst(t, p)
		shown := browserrig.Value[struct {
			Result, Steps, Legend, Colour, Picture string
			Rings, Filled                          int
		}](t, p, `(() => {
			const dots = [...document.querySelectorAll('#picture .dot')];
			return {
				Result: document.querySelector('#burst-result').className,
				Steps: document.querySelector('#steps').textContent,
				Legend: document.querySelector('#picture-roles .of-failed')?.textContent ?? '',
				Colour: getComputedStyle(dots[0]).stroke,
				Picture: document.querySelector('#picture').textContent,
				Rings: dots.filter((dot) => getComputedStyle(dot).stroke !== 'none').length,
				Filled: dots.filter((dot) => getComputedStyle(dot).stroke === 'none').length,
			};
		})()`)
		if !strings.Contains(words, "200 failed.") || !strings.Contains(shown.Result, "bad") {
			t.Errorf("%s: %q, as %q", mode, words, shown.Result)
		}
		if !strings.Contains(shown.Steps, c.steps) || !strings.Contains(shown.Steps, "200 of 200 callers got an error.") || !strings.Contains(shown.Steps, "No query reaches the database.") ||
			strings.Contains(shown.Steps, "never sent") || strings.Contains(shown.Steps, "gives its result") {
			t.Errorf("%s: the steps are %q", mode, shown.Steps)
		}
		if shown.Legend != "200 of them failed" || shown.Rings != 150 || shown.Filled != 0 || !strings.Contains(shown.Picture, "○ 200 failed") {
			t.Errorf("%s: %+v", mode, shown)
		}
		p.Close()
	}
	p := open(t, b, start(t, &store{}, nil), browserrig.View{ReducedMotion: true})
	burst(t, p)
	if browserrig.Value[bool](t, p, "document.querySelector('#picture-roles .of-failed, #picture .of-failed, #burst-result.bad') !== null") {
		t.Error("a burst that went well is shown as a failure")
	}
}

// A draining replica refuses the stream. EventSource gives up on such a response, so
// the page itself has to try again.
func thePageComesBackAfterItWasRefused(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	fleet := &concurrentFleet{}
	f := start(t, &store{}, func(c *api.Config) { c.Fleet, c.Replica = fleet, "first" })
	fleet.servers = []*api.Server{f.Server}
	p := open(t, b, f, browserrig.View{})
	browserrig.Value[any](t, p, "document.querySelector('#rates-table').closest('details').open = true")
	for i := range 3 {
		f.get(t, fmt.Sprintf("/product/coalesced/%d", i+1))
	}
	browserrig.WaitFor(t, p, "document.querySelector('[data-total=total_requests]').textContent === '3'")
	f.send(t, http.MethodPost, "/stats/reset", nil)
	browserrig.WaitFor(t, p, "document.querySelector('[data-total=total_requests]').textContent === '0' && document.querySelectorAll('#rates-table tbody tr').length > 3")
	if text, err := p.Text("#rates-table"); err != nil || strings.ContainsAny(text, "-−") {
		t.Errorf("a rate is negative after a reset: %q, %v", text, err)
	}
	f.Drain()
	browserrig.WaitFor(t, p, "document.querySelector('#connection').textContent === 'reconnecting'")
	requests := browserrig.Value[int](t, p, "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/events')).length")
	browserrig.WaitFor(t, p, fmt.Sprintf("performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/events')).length > %d", requests))
}

// Replicas restart, lose their counts by a reset, come and go, and the page reconnects
// to another one. The module rates.js has to return sensible rates for all of it.
func ratesAreNeverNegative(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	p := open(t, b, start(t, &store{}, nil), browserrig.View{})
	type point struct {
		Requests, Queries, Prevented float64
		Latency                      map[string]struct{ P50, P99, Requests float64 }
	}
	got := browserrig.Value[[]point](t, p, `import('/assets/rates.js').then(({ Rates }) => {
		const live = (instance, total, uptime = 100) => ({ instance, latency: { leader: [{ from_ms: 448, to_ms: 512, count: total }] },
			stats: { total_requests: total, queries_prevented: total - 1, database: { queries: 1 }, uptime_seconds: uptime } });
		const rates = new Rates();
		const next = (at, by, ...replicas) => rates.next({ at, fleet: { replica: by }, replicas }, at * 1000);
		return [
			next(1, 'a', live('a', 1000), live('b', 500)) ?? { requests: -1 },
			next(2, 'a', live('a', 1010), live('b', 505)),
			next(4, 'a', live('a', 1030), live('b', 5)), // two seconds later; b was reset
			next(5, 'c', live('a', 1030), live('b2', 7, 0.3)), // b was restarted, and c asks
			next(6, 'c', live('a', 1030), live('b2', 7), live('d', 90000)), // d ran before, but had not answered
			next(7, 'c', live('a', 1030)), // b and d have left
		];
	})`)
	for i, want := range []float64{-1, 15, 12.5, 7, 0, 0} {
		if got[i].Requests != want || got[i].Queries < 0 || got[i].Prevented < 0 {
			t.Errorf("at step %d: %+v, want %v requests a second", i, got[i], want)
		}
	}
	if l := got[1].Latency["leader"]; l.Requests != 15 || l.P50 != 480 || l.P99 < 511 || l.P99 > 512 {
		t.Errorf("latency %+v", l)
	}
}

// The contrast is computed as WCAG defines it. Its level AA requires 4.5.
func wordsCanBeRead(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	fleet := &concurrentFleet{}
	held := &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
		return product.Catalogue()[0], product.Hold(ctx, time.Second) // so that there are followers
	}}
	f := start(t, held, func(c *api.Config) {
		c.Fleet = fleet
		c.Tiers = func() api.Tiers {
			return api.Tiers{Local: &api.LocalTier{}, Distributed: &api.DistributedTier{
				RedisServers: []api.RedisServer{{Address: "127.0.0.1:6379", State: "up"}, {Address: "127.0.0.1:6380", State: "down", Why: "timeout: no reply"}}}}
		}
	})
	fleet.servers = []*api.Server{f.Server}
	p := open(t, b, f, browserrig.View{ReducedMotion: true})
	burst(t, p)
	for _, dark := range []bool{false, true} {
		if err := p.SetView(browserrig.View{Dark: dark, ReducedMotion: true}); err != nil {
			t.Fatal(err)
		}
		faint := browserrig.Value[[]string](t, p, `(() => {
			const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
			const light = (colour) => numbers(colour).slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
			const behind = (e) => {
				for (; e; e = e.parentElement) {
					const colour = getComputedStyle(e).backgroundColor;
					if ((numbers(colour)[3] ?? 1) > 0.99) return colour;
				}
			};
			const faint = [];
			for (const e of document.querySelectorAll('body *')) {
				const words = [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
				if (!words || !e.checkVisibility() || e.closest('.skip, .unseen, :disabled, option, script, noscript')) continue;
				const style = getComputedStyle(e);
				const [a, b] = [light(e.namespaceURI.endsWith('svg') ? style.fill : style.color), light(behind(e))];
				const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
				if (contrast < 4.5) faint.push(contrast.toFixed(2) + ' ' + e.tagName + '.' + (e.getAttribute('class') ?? '') + ' ' + e.textContent.trim().slice(0, 30));
			}
			return faint;
		})()`)
		if len(faint) != 0 {
			t.Errorf("dark %v: these are hard to read: %q", dark, faint)
		}
	}
}
