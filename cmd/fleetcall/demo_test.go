package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/load"
)

func TestADemoIsRepeatedOnlyWhenRequestsCameTooLate(t *testing.T) {
	for name, c := range map[string]struct {
		mode        string
		queries     int64
		tier        load.TierStats
		concurrency int
		late        bool
	}{
		"one query":                         {"distributed", 1, load.TierStats{}, 100, false},
		"a second flight after the first":   {"distributed", 2, load.TierStats{}, 100, true},
		"a replica without Redis":           {"distributed", 2, load.TierStats{Fallbacks: 1}, 100, false},
		"a leader that was taken for dead":  {"distributed", 2, load.TierStats{Takeovers: 1}, 100, false},
		"a lease that was lost":             {"distributed", 2, load.TierStats{LeaseLost: 1}, 100, false},
		"requests that are sent in turn":    {"distributed", 2, load.TierStats{}, 99, false},
		"one flight for each replica":       {"local", 3, load.TierStats{}, 100, false},
		"more flights than replicas":        {"local", 4, load.TierStats{}, 100, true},
		"a query for each request":          {"off", 100, load.TierStats{}, 100, false},
		"fewer queries than are to be seen": {"off", 99, load.TierStats{}, 100, false},
	} {
		demo := &demoCmd{Requests: 100, Concurrency: c.concurrency, Replicas: 3}
		o := outcome{mode: c.mode, queries: c.queries}
		o.counted.Tiers.Distributed = &c.tier
		if demo.cameLate(o) != c.late {
			t.Errorf("%s: repeated %v, want %v", name, !c.late, c.late)
		}
	}
}

func TestAStallOfTheMachineIsNoHangOfRedisToTheDemoUnlessSomebodyWantsItSo(t *testing.T) {
	demo := &demoCmd{Replicas: 3}
	has := func(setting string) bool {
		return slices.Contains(demo.fleet("distributed", time.Second).Env, setting)
	}
	if !has("COALESCE_REDIS_TIMEOUT=10s") || !has("COALESCE_LEASE_TTL=30s") || !has("QUERY_DELAY=1s") {
		t.Errorf("%q", demo.fleet("distributed", time.Second).Env)
	}
	t.Setenv("COALESCE_LEASE_TTL", "5s") // a timeout of 10 s would not fit
	if env := strings.Join(demo.fleet("distributed", time.Second).Env, " "); strings.Contains(env, "COALESCE_REDIS_TIMEOUT") || strings.Contains(env, "COALESCE_LEASE_TTL") {
		t.Errorf("what was set is overridden: %s", env)
	}
}
