package chaos

import (
	"strings"
	"testing"
	"time"
)

func TestEveryPromiseHoldsAmongHostsThatLoseEachOther(t *testing.T) {
	if missing := HostsMissing(); missing != "" {
		t.Skipf("left out: hosts that lose each other, which needs %s", missing)
	}
	result, err := RunHosts(t.Context(), Config{
		Seed: 1, Rounds: 1, Time: 12 * time.Second, Replicas: 3, Keeping: 1, Callers: 6, Dir: t.TempDir(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, failure := range result.Failures {
		t.Error(failure)
	}
	if len(result.Rows) != len(hostFaults) {
		t.Errorf("%d rows, want %d", len(result.Rows), len(hostFaults))
	}
	var table strings.Builder
	_ = Print(&table, result.Rows)
	t.Log("\n" + table.String())
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}
