package api_test

import (
	"encoding/json"
	"testing"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/internal/rig/browserrig"
)

// watching is a replica in mode shadow.
func watching(t *testing.T, name string, st api.ShadowStats) *fixture {
	return start(t, &store{}, func(c *api.Config) {
		c.Mode, c.Replica = "shadow", name
		c.Shadow = func() api.ShadowStats { return st }
	})
}

var shadowed = api.ShadowStats{
	Requests: 1000, QuerySeconds: 500,
	Local:       api.ShadowTier{Executions: 400, QuerySeconds: 200},
	Distributed: &api.ShadowTier{Executions: 100.04, ExecutionsError: 10, QuerySeconds: 50, SecondsError: 5},
	Covered:     0.5, Pending: 1, Sample: 64, Seconds: api.ShadowTime{Counted: 7, Silent: 1},
	Hottest: []api.ShadowKey{{Key: "product:1", Requests: 600, Local: 200, Distributed: 20, Seconds: 300}},
}

func shadowOf(t *testing.T, body string) (st *api.ShadowStats) {
	t.Helper()
	var stats struct{ Shadow *api.ShadowStats }
	if err := json.Unmarshal([]byte(body), &stats); err != nil {
		t.Fatal(err)
	}
	return stats.Shadow
}

func TestStatsOfModeShadowSayWhatEachTierWouldHaveSaved(t *testing.T) {
	st := shadowOf(t, watching(t, "a", shadowed).get(t, "/stats").body)
	local := api.ShadowTier{Executions: 400, Saved: 600, SavedRate: "60.0%", QuerySeconds: 200, SavedSeconds: 300}
	distributed := api.ShadowTier{Executions: 100, ExecutionsError: 10, Saved: 900, SavedRate: "90.0%", QuerySeconds: 50, SavedSeconds: 450, SecondsError: 5}
	if st == nil || st.Local != local || *st.Distributed != distributed {
		t.Errorf("%+v", st)
	}
	if other := shadowOf(t, start(t, &store{}, nil).get(t, "/stats").body); other != nil {
		t.Errorf("another mode has %+v", other)
	}
}

func TestFleetScopeSumsWhatReplicasWouldHaveSaved(t *testing.T) {
	fleet := &fakeFleet{}
	second := shadowed
	second.Requests, second.Covered = 3000, 1
	second.Hottest = []api.ShadowKey{{Key: "product:2", Requests: 900}, {Key: "product:1", Requests: 400, Local: 100, Distributed: 10}}
	a, b := watching(t, "a", shadowed), watching(t, "b", second)
	fleet.servers = []*api.Server{a.Server, b.Server}
	asked := start(t, &store{}, func(c *api.Config) { c.Mode, c.Fleet = "shadow", fleet })
	st := shadowOf(t, asked.get(t, "/stats?scope=fleet").body)
	if st == nil || st.Requests != 4000 || st.Covered != 0.875 || st.Local.Executions != 800 || st.Seconds.Counted != 14 {
		t.Fatalf("%+v", st)
	}
	if d := st.Distributed; d.Executions != 200 || d.ExecutionsError != 20 || d.Saved != 3800 || d.SecondsError != 10 {
		t.Errorf("%+v", d)
	}
	if h := st.Hottest; len(h) != 2 || h[0].Key != "product:1" || h[0].Requests != 1000 || h[0].Distributed != 30 || h[1].Key != "product:2" {
		t.Errorf("%+v", h)
	}
}

func whatWouldBeSavedIsShownInModeShadow(t *testing.T, b *browserrig.Browser) {
	p := open(t, b, watching(t, "a", shadowed), browserrig.View{})
	browserrig.WaitFor(t, p, "!document.querySelector('#shadow').hidden")
	for selector, want := range map[string]string{
		"#shadow-table tbody tr:nth-child(1) td:nth-child(2)": "600",
		"#shadow-table tbody tr:nth-child(2) td:nth-child(2)": "900 ± 10",
		"#shadow-table tbody tr:nth-child(2) td:nth-child(4)": "450.0 ± 5.0 s",
		"#shadow-keys tbody tr:nth-child(1) th":               "product:1",
		"#shadow-keys tbody tr:nth-child(1) td:nth-child(4)":  "20",
		"#shadow-words": "Of 1,000 requests, each of which ran its own query, for 500 s together. 50.0% of them are counted for the distributed tier. The hottest keys and one of 64 others are followed.",
	} {
		if got, err := p.Text(selector); err != nil || got != want {
			t.Errorf("%s: %v, %q, want %q", selector, err, got, want)
		}
	}
	other := open(t, b, start(t, &store{}, nil), browserrig.View{})
	if hidden, err := browserrig.Eval[bool](other, "document.querySelector('#shadow').hidden"); err != nil || !hidden {
		t.Errorf("another mode shows it: %v", err)
	}
}
