package chaos

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

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
	if left := children(t); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	return result
}

// children returns the processes whose parent this one is.
func children(t *testing.T) []string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var state byte
		var parent int
		after := string(text[bytes.LastIndexByte(text, ')')+1:])
		if _, err := fmt.Sscanf(after, " %c %d", &state, &parent); err == nil && parent == os.Getpid() && state != 'Z' {
			found = append(found, string(text))
		}
	}
	return found
}

func TestEveryPromiseHoldsUnderEveryKindOfFault(t *testing.T) {
	result := campaignFor(t, Config{
		Seed: 1, Rounds: 1, Time: 12 * time.Second, Replicas: 3, Keeping: 1, Callers: 6,
		Faults: []string{
			"leader killed", "leader stopped", "leader shut down",
			"Redis killed", "Redis frozen", "Redis full", "Redis read-only",
			"scripts flushed", "subscriptions cut", "connections cut",
			"garbage in keys", "garbage in messages", "messages lost", "messages cut short", "replies lost",
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
	if want := 16; len(result.Rows) != want {
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
	for broken, promise := range map[Broken]string{Bypass: "P1", Stale: "P3", Swallow: "P2"} {
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
			known := len(got) >= 33 && got[0] == 1 && got[1] >= 1 && got[1] <= 6
			if got == real && real != "" || known && len(got) == len(real) {
				t.Fatalf("%q was made of %q", got, real)
			}
		}
	}
}

// ms is a moment of a made-up history.
func ms(n int64) int64 { return n * int64(time.Millisecond) }

// beganAt and those below are records of a made-up history of the key k, at moments in
// milliseconds.
func beganAt(at int64, process, execution, role, cause string) history.Record {
	return history.Record{At: ms(at), Kind: history.Started, Process: process, Key: "k", Execution: execution, Role: role, Cause: cause}
}

func endedAt(at int64, process, execution string) history.Record {
	return history.Record{At: ms(at), Kind: history.Ended, Process: process, Key: "k", Execution: execution}
}

func calledAt(at int64, process, call string) history.Record {
	return history.Record{At: ms(at), Kind: history.Called, Process: process, Key: "k", Call: call}
}

func returnedAt(at int64, process, call, execution, role string) history.Record {
	return history.Record{At: ms(at), Kind: history.Returned, Process: process, Key: "k", Call: call, Execution: execution, Role: role}
}

var waitCases = []struct {
	name           string
	fault          string
	target         string
	effects        *history.Effects
	records        []history.Record
	wait, arriving time.Duration // 0: none
}{
	{
		name: "a takeover counts from the kill", fault: "leader killed", target: "r1.1", effects: &history.Effects{Kills: true},
		records: []history.Record{
			beganAt(10, "r1.1", "e1", "leader", ""), calledAt(20, "r2.1", "c1"),
			beganAt(400, "r2.1", "e2", "leader", ""), returnedAt(500, "r2.1", "c1", "e2", "leader"),
		},
		wait: 300 * time.Millisecond,
	},
	{
		name: "an answer counts from the execution's end", fault: "messages lost", target: "r2.1", effects: &history.Effects{},
		records: []history.Record{
			beganAt(10, "r1.1", "e1", "leader", ""), calledAt(20, "r2.1", "c1"),
			endedAt(300, "r1.1", "e1"), returnedAt(550, "r2.1", "c1", "e1", "remote-follower"),
		},
		wait: 250 * time.Millisecond,
	},
	{
		name: "a fallback counts from the fault though the leader runs on", fault: "Redis killed", effects: &history.Effects{},
		records: []history.Record{
			beganAt(10, "r1.1", "e1", "leader", ""), calledAt(20, "r2.1", "c1"),
			beganAt(180, "r2.1", "e2", "fallback", "timeout"), returnedAt(190, "r2.1", "c1", "e2", "fallback"), endedAt(900, "r1.1", "e1"),
		},
		wait: 80 * time.Millisecond,
	},
	{
		name: "a caller that comes counts from its coming", fault: "Redis killed", effects: &history.Effects{},
		records: []history.Record{
			calledAt(150, "r2.1", "c1"), beganAt(250, "r2.1", "e2", "fallback", "timeout"), returnedAt(290, "r2.1", "c1", "e2", "fallback"),
		},
		arriving: 100 * time.Millisecond,
	},
}

func TestAWaitIsCountedFromWhenNobodyRanForIt(t *testing.T) {
	for _, c := range waitCases {
		t.Run(c.name, func(t *testing.T) {
			records := append(slices.Clone(c.records),
				history.Record{At: ms(100), Kind: history.FaultBegin, Fault: c.fault, Target: c.target, Key: "k", Effects: c.effects},
				history.Record{At: ms(700), Kind: history.FaultEnd, Fault: c.fault, Target: c.target, Key: "k"})
			slices.SortStableFunc(records, func(a, b history.Record) int { return int(a.At - b.At) })
			rows := measure(records, history.Report{})
			if len(rows) != 1 {
				t.Fatalf("%d rows", len(rows))
			}
			if got := worst(rows[0].Waits); got != c.wait {
				t.Errorf("wait %v, want %v", got, c.wait)
			}
			if got := worst(rows[0].Arriving); got != c.arriving {
				t.Errorf("arriving %v, want %v", got, c.arriving)
			}
		})
	}
}

func TestAnExceededBoundIsMarkedAndOneByFarFails(t *testing.T) {
	result := Result{Rows: []Row{
		{Fault: "kept", Limit: time.Second, Waits: []time.Duration{time.Second}},
		{Fault: "exceeded", Limit: time.Second, Waits: []time.Duration{2 * time.Second}},
	}}
	var table strings.Builder
	if err := Print(&table, result.Rows); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(table.String()) {
		if marked := strings.Contains(line, "!"); marked != strings.HasPrefix(line, "exceeded") {
			t.Errorf("marked is %v: %s", marked, line)
		}
		if utf8.RuneCountInString(line) > 120 {
			t.Errorf("over 120 columns: %s", line)
		}
	}
	if found := failures(result); len(found) != 0 {
		t.Errorf("failures %v", found)
	}
	result.Rows[1].Waits[0] += slack
	if found := failures(result); len(found) != 1 {
		t.Errorf("failures %v, want one", found)
	}
}
