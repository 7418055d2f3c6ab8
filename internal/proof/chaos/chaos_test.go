package chaos

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

func TestMain(m *testing.M) {
	ServeReplica()
	goleak.VerifyTestMain(m)
}

// campaignFor runs a campaign and fails the test when it cannot be run, or
// leaves a process running.
func campaignFor(t *testing.T, config Config) Result {
	t.Helper()
	config.Dir = t.TempDir()
	config.Progress = func(text string) { t.Log(text) }
	result, err := Run(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := children(); len(left) > 0 || err != nil {
		t.Errorf("processes are left: %v, %v", left, err)
	}
	return result
}

func TestEveryPromiseHoldsUnderEveryKindOfFault(t *testing.T) {
	result := campaignFor(t, Config{
		Seed: 1, Rounds: 1, Time: 12 * time.Second, Replicas: 3, Keeping: 1, Callers: 6, Clusters: 1,
		Faults: []string{
			"leader killed", "leader stopped", "leader shut down",
			"clock set forward", "clock set back",
			"Redis killed", "Redis frozen", "Redis full", "Redis read-only", "keys evicted",
			"scripts flushed", "SUBSCRIBE refused", "subscriptions cut", "subscriptions cut again and again", "connections cut", "stored results lost", "output buffers full",
			"garbage in keys", "garbage in messages", "another fleet on db 1",
			"messages lost", "messages cut short", "1 in 100 replies held", "thin link", "replies lost",
			"one of three masters killed", "one of three masters frozen",
		},
	})
	for _, failure := range result.Failures {
		t.Error(failure)
	}
	for _, row := range result.Rows {
		if row.Fault != several && row.Injected != 1 {
			t.Errorf("%s was injected %d times, want once", row.Fault, row.Injected)
		}
	}
	if want := 30 - len(result.Skipped); len(result.Rows) != want {
		t.Errorf("%d rows, want %d", len(result.Rows), want)
	}
	if result.History.Calls < 100 || result.History.Outcomes[history.Value] == 0 {
		t.Errorf("%d calls with outcomes %v: the workload does not run", result.History.Calls, result.History.Outcomes)
	}
	if t.Failed() {
		var table strings.Builder
		_ = Print(&table, result.Rows)
		t.Log("\n" + table.String())
	}
}

func TestABrokenReplicaIsFound(t *testing.T) {
	for broken, promise := range map[Broken]string{Bypass: "P1", Stale: "P3", Swallow: "P2", Mix: "log"} {
		t.Run(string(broken), func(t *testing.T) {
			result := campaignFor(t, Config{
				Seed: 1, Rounds: 6, Time: 8 * time.Second, Replicas: 2, Callers: 12,
				Faults: []string{"scripts flushed"}, Broken: broken,
			})
			if !slices.ContainsFunc(result.History.Violations, func(v history.Violation) bool { return v.Promise == promise }) {
				t.Errorf("no violation of %s among %d", promise, len(result.History.Violations))
			}
			if len(result.Failures) == 0 {
				t.Error("the campaign has not failed")
			}
		})
	}
}

func TestOneSeedIsOneWorkload(t *testing.T) {
	steps := func(seed uint64) (all []step) {
		random := stream(seed, "r1.1 caller 0")
		for range 500 {
			all = append(all, nextStep(random, ""))
		}
		return all
	}
	if !reflect.DeepEqual(steps(7), steps(7)) {
		t.Error("one seed makes two workloads")
	}
	if reflect.DeepEqual(steps(7), steps(8)) {
		t.Error("two seeds make one workload")
	}
}

func TestMangledTextsAreNoOutcomes(t *testing.T) {
	random := stream(1, "mangled")
	const flight = "0123456789abcdefghijkl" + "finished" // its 8 bytes
	for _, real := range []string{"", "1", "\x01\x01" + flight + "\x04json\"a value\"", "\x01\x06" + flight + "\x00"} {
		for range 1000 {
			got := mangled(real, random)
			known := len(got) >= 33 && got[0] == 1 && got[1] >= 1 && got[1] <= 8
			if got == real && real != "" || known && len(got) == len(real) {
				t.Fatalf("%q was made of %q", got, real)
			}
		}
	}
}
