package api_test

import (
	"encoding/json"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

// dots returns the number of dots, and how many of them have moved half a second later.
func dots(t *testing.T, p *browserrig.Page) (drawn, moved int) {
	t.Helper()
	got := browserrig.Value[[]int](t, p, `new Promise((resolve) => {
		const all = [...document.querySelectorAll('#picture .dots circle:not(.seat)')];
		const where = () => all.map((dot) => dot.getAttribute('cx') + ' ' + dot.getAttribute('cy'));
		const before = where();
		setTimeout(() => resolve([all.length, where().filter((at, i) => at !== before[i]).length]), 500);
	})`)
	return got[0], got[1]
}

func thePictureMovesUnlessLessMotionIsWanted(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	for _, still := range []bool{false, true} {
		p := open(t, b, start(t, &store{}, nil), browserrig.View{ReducedMotion: still})
		browserrig.Value[any](t, p, "document.querySelector('[name=requests]').value = 60")
		burst(t, p)
		seats := browserrig.Value[int](t, p, "document.querySelectorAll('#picture .seat').length")
		var drawn, moved int
		for range 4 { // in the first second, the dots stand still in any case
			n, more := dots(t, p)
			drawn, moved = n, moved+more
		}
		if seats != 60 || drawn != 60+1 {
			t.Errorf("60 requests and a flight that leads: %d places, %d dots", seats, drawn)
		}
		if still && moved != 0 || !still && moved < 10 {
			t.Errorf("less motion wanted: %v; %d dots have moved", still, moved)
		}
		p.Close()
	}
}

func pauseAndEndKeepTheFocus(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	p := open(t, b, start(t, &store{}, nil), browserrig.View{})
	press := func(keys string) {
		t.Helper()
		if err := p.Press(keys); err != nil {
			t.Fatal(err)
		}
	}
	burst(t, p)
	press("\t")
	expect := func(when, words string) {
		t.Helper()
		if got := browserrig.Value[string](t, p, "document.activeElement.id + ' ' + document.activeElement.textContent"); got != "pause "+words {
			t.Errorf("%s the focus is on %q", when, got)
		}
	}
	expect("after the burst's button", "Pause")
	press("\r")
	expect("while it stands", "Go on")
	if _, moved := dots(t, p); moved != 0 {
		t.Errorf("%d dots move while it stands", moved)
	}
	press("\r")
	expect("while it moves", "Pause")
	browserrig.WaitFor(t, p, "document.querySelector('#steps [aria-current]') === null")
	expect("at its end", "Pause")
	if said := browserrig.Value[string](t, p, "document.activeElement.getAttribute('aria-disabled')"); said != "true" {
		t.Errorf("nothing is there to be paused, and aria-disabled is %q", said)
	}
	press("\r")
	expect("when there is nothing to pause", "Pause")
}

func namesInThePictureStayApart(t *testing.T, b *browserrig.Browser) {
	t.Helper()
	p := open(t, b, start(t, &store{}, nil), browserrig.View{ReducedMotion: true})
	for _, width := range []int{1280, 360} {
		if err := p.SetView(browserrig.View{Width: width, Height: 800, ReducedMotion: true}); err != nil {
			t.Fatal(err)
		}
		for _, names := range [][]string{
			{"fleetcall-api-7d9c5b6f4d-x2x7k", "fleetcall-api-7d9c5b6f4d-9qk4z", "fleetcall-api-7d9c5b6f4d-x2x7m"},
			{"node-1.eu-central-1.compute.internal:8000", "node-2.eu-central-1.compute.internal:8000", "node-3.eu-central-1.compute.internal:8000"},
			{"replica-1", "replica-2", "replica-3"},
		} {
			list, err := json.Marshal(names)
			if err != nil {
				t.Fatal(err)
			}
			shown := browserrig.Value[struct {
				Names []string
				Held  string
			}](t, p, `import('/assets/picture.js').then(({ Picture }) => {
				const target = document.querySelector('#picture');
				const call = (role) => ({ role, status: 200, start_ms: 0, ms: 1 });
				new Picture(target, () => {}).show({
					product: 1, requests: 3, mode: 'distributed', flights: 3, queries: 1, prevented: 2, failed: 0, unfinished: 0,
					replicas: `+string(list)+`.map((replica, i) => ({ replica, state: 'ran', requests: 1, flights: 1, queries: i ? 0 : 1, calls: [call(i ? 'remote-follower' : 'leader')] })),
				}, false);
				const written = [...target.querySelectorAll('text')];
				return {
					Names: written.filter((e) => e.querySelector('title')).map((e) => e.firstChild.data),
					Held: written.find((e) => e.textContent.startsWith('held by ')).textContent.slice(8),
				};
			})`)
			slices.Sort(shown.Names)
			if len(slices.Compact(slices.Clone(shown.Names))) != 3 || !slices.Contains(shown.Names, shown.Held) {
				t.Errorf("at %d pixels: %q, held by %q", width, shown.Names, shown.Held)
			}
			for _, name := range shown.Names {
				if most := map[int]int{1280: 20, 360: 12}[width]; utf8.RuneCountInString(name) > most {
					t.Errorf("at %d pixels there is no room for %q", width, name)
				}
			}
		}
	}
}
