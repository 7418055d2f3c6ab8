package chaos

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/netrig"
	"github.com/fleetcall/fleetcall/internal/rig/sourcerig"
)

// allVariable asks for all that can be done among hosts, which takes minutes: make hosts does.
const allVariable = "FLEETCALL_HOSTS"

func TestEveryPromiseHoldsAmongHostsThatLoseEachOther(t *testing.T) {
	config, want := Config{Keeping: 1}, names(hostFaults)
	if os.Getenv(allVariable) == "all" {
		config.Clusters = 1
		for _, f := range clusterHostFaults {
			want = append(want, f.name, f.living)
		}
		for _, f := range sentinelFaults {
			want = append(want, f.name)
		}
	} else {
		t.Log("left out: a Cluster and sentinels among hosts, which make hosts has")
	}
	amongHosts(t, config, want)
}

func TestEveryPromiseHoldsAmongHostsOfTwoReleases(t *testing.T) {
	if os.Getenv(allVariable) != "all" {
		t.Skip("left out: the release before this one among hosts, which make hosts has")
	}
	// Of the replicas that keep results, too, one is of each release.
	amongHosts(t, Config{Keeping: 2, Mixed: true}, names(hostFaults))
}

func names(faults []fault) (all []string) {
	for _, f := range faults {
		all = append(all, f.name)
	}
	return all
}

// amongHosts injects each fault once. The rows with these names have to be there.
func amongHosts(t *testing.T, config Config, want []string) {
	t.Helper()
	if missing := netrig.Missing(); missing != "" {
		t.Skipf("left out: hosts that lose each other, which needs %s", missing)
	}
	config.Seed, config.Rounds, config.Time = 1, 1, 12*time.Second
	config.Replicas, config.Callers, config.Dir = 3, 6, t.TempDir()
	result, err := RunHosts(t.Context(), config)
	if errors.Is(err, sourcerig.ErrNoHistory) {
		t.Skipf("left out: the release before this one among hosts: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, failure := range result.Failures {
		t.Error(failure)
	}
	for _, name := range want {
		if !slices.ContainsFunc(result.Rows, func(r Row) bool { return r.Fault == name && r.Injected > 0 && r.Calls > 0 }) {
			t.Errorf("no calls were made while there was: %s", name)
		}
	}
	var table strings.Builder
	_ = Print(&table, result.Rows)
	if config.Mixed {
		t.Logf("beside this release: %s", result.Old)
	}
	t.Log("\n" + table.String())
}
