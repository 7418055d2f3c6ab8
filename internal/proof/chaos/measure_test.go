package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

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

func TestAPriceOverItsBoundIsMarkedAndFails(t *testing.T) {
	rows := func(beyond int) Result {
		return Result{Rows: []Row{{Fault: "cheap", Executions: 100 + beyond, Rounds: 100, Beyond: beyond, Most: 1.5}}}
	}
	for _, c := range []struct {
		beyond        int
		marked, fails bool
	}{{50, false, false}, {51, true, false}, {50 + spare, true, false}, {51 + spare, true, true}} {
		result := rows(c.beyond)
		var table strings.Builder
		if err := Print(&table, result.Rows); err != nil {
			t.Fatal(err)
		}
		if marked := strings.Contains(table.String(), "!"); marked != c.marked {
			t.Errorf("%d beyond: marked is %v\n%s", c.beyond, marked, &table)
		}
		if failed := len(failures(result)) > 0; failed != c.fails {
			t.Errorf("%d beyond: failures %v", c.beyond, failures(result))
		}
	}
}

// TestAFaultsPriceIsWhatBeganWhileItLasted has a history of two rounds, of which one
// took two executions.
func TestAFaultsPriceIsWhatBeganWhileItLasted(t *testing.T) {
	const fault = "1 in 100 replies held"
	records := []history.Record{
		{Process: "r1.1", Kind: history.Begin, Settings: &history.Settings{LeaseTTL: leaseTTL, FlightTimeout: flightTimeout, RedisTimeout: redisTimeout}},
		{Process: "r2.1", Kind: history.Begin, Settings: &history.Settings{LeaseTTL: leaseTTL, FlightTimeout: flightTimeout, RedisTimeout: redisTimeout}},
		{At: ms(100), Process: "driver", Kind: history.FaultBegin, Fault: fault, Effects: &history.Effects{Holds: true}},
		beganAt(200, "r1.1", "e1", "leader", ""), beganAt(300, "r2.1", "e2", "fallback", "timeout"),
		endedAt(400, "r1.1", "e1"), endedAt(410, "r2.1", "e2"),
		beganAt(500, "r1.1", "e3", "leader", ""), endedAt(600, "r1.1", "e3"),
		{At: ms(700), Process: "driver", Kind: history.FaultEnd, Fault: fault},
	}
	rows := measure(records, history.Check(records))
	if len(rows) != 1 || rows[0].Executions != 3 || rows[0].Rounds != 2 || rows[0].Beyond != 1 {
		t.Fatalf("%+v, want one row of 3 executions and 1 beyond", rows)
	}
	if got, want := rows[0].price(), "1.50 ≤ 1.1 !"; got != want {
		t.Errorf("the price is %q, want %q", got, want)
	}
}

func TestAFaultOfLeadersThatHitsNoneFails(t *testing.T) {
	on := []string{"", "0123456789abcdefghijkl"}
	for _, flights := range [][]string{on[:1], on} {
		var records []history.Record
		for i, flight := range flights {
			began := history.Record{At: ms(int64(1 + i)), Kind: history.FaultBegin, Fault: "leader killed", Target: "r1.1", Flight: flight, Injection: flight, Effects: &history.Effects{Kills: true}}
			ended := began
			ended.Kind = history.FaultEnd
			records = append(records, began, ended)
		}
		rows := measure(records, history.Report{})
		if failed := len(failures(Result{Rows: rows})) > 0; failed != (len(flights) == 1) {
			t.Errorf("flights %q: failures %v", flights, failures(Result{Rows: rows}))
		}
	}
}

// TestTheLivingMastersKeysHaveAPriceOfTheirOwn has a fault that hits the key k alone.
func TestTheLivingMastersKeysHaveAPriceOfTheirOwn(t *testing.T) {
	f := clusterFaults[0]
	of := func(key string, records ...history.Record) []history.Record {
		for i := range records {
			records[i].Key = key
			records[i].Execution += key
		}
		return records
	}
	records := slices.Concat(
		[]history.Record{{At: ms(100), Kind: history.FaultBegin, Fault: f.name, Effects: &f.effects, Keys: []string{"k"}}},
		of("k", beganAt(200, "r1.1", "e1", "fallback", "down"), beganAt(210, "r2.1", "e2", "fallback", "down")),
		of("other", beganAt(220, "r1.1", "e3", "leader", "")),
		[]history.Record{{At: ms(700), Kind: history.FaultEnd, Fault: f.name}})
	rows := measure(records, history.Report{Beyond: map[string]bool{"e2k": true}})
	if len(rows) != 2 {
		t.Fatalf("%d rows, want 2", len(rows))
	}
	hit, living := rows[0], rows[1]
	if hit.Fault != f.name || hit.Executions != 2 || hit.Beyond != 1 || hit.Most != clusterReplicas {
		t.Errorf("the keys that are hit: %+v", hit)
	}
	if living.Fault != f.living || living.Executions != 1 || living.Beyond != 0 || living.Most != mostLiving {
		t.Errorf("the others: %+v", living)
	}
}

func TestAFaultThatCannotBeInjectedIsNamed(t *testing.T) {
	before := faults
	defer func() { faults = before }()
	faults = append(slices.Clone(before), fault{name: "power cut", needs: func() string { return "a switch" }})
	c := &campaign{config: Config{Faults: []string{"power cut", "leader killed"}}}
	if got := c.chosen(faults); len(got) != 1 || got[0].name != "leader killed" {
		t.Errorf("chosen: %v", got)
	}
	if got := c.skipped(); len(got) != 1 || got["power cut"] != "a switch" {
		t.Errorf("skipped: %v", got)
	}
}
