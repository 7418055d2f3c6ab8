package chaos

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/netrig"
)

// allVariable asks for all that can be done among hosts, which takes minutes: make hosts does.
const allVariable = "FLEETCALL_HOSTS"

func TestEveryPromiseHoldsAmongHostsThatLoseEachOther(t *testing.T) {
	config, want := Config{}, len(hostFaults)
	if os.Getenv(allVariable) == "all" {
		config.Clusters = 1
		want += 2*len(clusterHostFaults) + len(sentinelFaults) // each of a Cluster has a row of the other masters' keys
	} else {
		t.Log("left out: a Cluster and sentinels among hosts, which make hosts has")
	}
	if rows := amongHosts(t, config); len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
}

func TestEveryPromiseHoldsAmongHostsOfTwoReleases(t *testing.T) {
	if os.Getenv(allVariable) != "all" {
		t.Skip("left out: the release before this one among hosts, which make hosts has")
	}
	rows := amongHosts(t, Config{Mixed: true})
	if len(rows) != len(hostFaults) {
		t.Errorf("%d rows, want %d", len(rows), len(hostFaults))
	}
}

// amongHosts runs each fault once, and returns what was measured.
func amongHosts(t *testing.T, config Config) []Row {
	t.Helper()
	if missing := netrig.Missing(); missing != "" {
		t.Skipf("left out: hosts that lose each other, which needs %s", missing)
	}
	config.Seed, config.Rounds, config.Time = 1, 1, 12*time.Second
	config.Replicas, config.Keeping, config.Callers, config.Dir = 3, 1, 6, t.TempDir()
	result, err := RunHosts(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	for _, failure := range result.Failures {
		t.Error(failure)
	}
	var table strings.Builder
	_ = Print(&table, result.Rows)
	if config.Mixed {
		t.Logf("beside this release: %s", result.Old)
	}
	t.Log("\n" + table.String())
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	return result.Rows
}
