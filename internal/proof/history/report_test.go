package history_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

func TestReportHasTheNumbersOfEachFault(t *testing.T) {
	report := history.Check(parse(`
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		120 r2 call b
		130 r3 call c
		500 driver fault kill r1 kills
		501 driver faultend kill r1
		3103 r2 taken y
		3104 r2 start y leader takeover=yes
		3600 r2 end y value
		3601 r2 return b leader value y
		3602 r2 released y
		3605 r3 return c remote-follower value y

		20000 r2 call d
		20002 r2 taken z
		20003 r2 start z leader
		20020 r3 call e
		20100 driver fault pause * unusable
		20400 r3 start w fallback cause=timeout takeover=yes
		20900 r3 end w value
		20901 r3 return e fallback value w
		21000 r2 end z value
		21001 r2 return d leader value z
		22000 r3 call f
		22250 r3 return f none unavailable
		25000 driver faultend pause *
		25001 r2 released z

		40000 r2 call g
		40001 r2 return g none cancelled
	`, settings))
	if got := len(report.Violations); got != 1 || report.Violations[0].Promise != "P5" {
		t.Fatalf("violations: %v", report.Violations)
	}
	if report.Calls != 7 || report.Executions != 4 || report.Flights != 4 || report.Outcomes[history.Value] != 4 || report.Outcomes[history.Unavailable] != 1 {
		t.Errorf("the whole: %+v", report)
	}
	for fault, want := range map[string]history.FaultReport{
		"kill": {
			Injected: 1, Calls: 1, Executions: 1, Flights: 1, // only those of r1
			ExecutionsPerFlightMax: 2, ExecutionsPerFlightMean: 2,
			Recovery: []time.Duration{2604 * time.Millisecond},
		},
		"pause": {
			Injected: 1, Calls: 3, Executions: 2, Flights: 2, Hurt: 1,
			ExecutionsPerFlightMax: 2, ExecutionsPerFlightMean: 2,
			Recovery: []time.Duration{300 * time.Millisecond},
		},
	} {
		got := report.Faults[fault]
		if !slices.Equal(got.Recovery, want.Recovery) || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, want %+v", fault, got, want)
		}
	}
}

func TestReportSaysForHowLongOthersGotAForgottenFlight(t *testing.T) {
	report := history.Check(parse(`
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		400 r2 forget g
		401 r2 forgotten g
		411 r1 call b
		421 r1 call c
		900 r1 end x value
		901 r1 return a leader value x
		902 r1 return b local-follower value x
		903 r1 return c local-follower value x
		905 r1 released x
	`, settings))
	want := history.ForgetReport{Forgets: 1, StaleCalls: 2, Longest: 20 * time.Millisecond}
	if len(report.Violations) > 0 || report.Forgets != want {
		t.Errorf("%+v, want %+v", report, want)
	}
}

func TestATimeoutWithoutAFaultIsCountedOnlyIfTheMachineMayBeSlow(t *testing.T) {
	text := usualFlight + `
		5000 r2 start y fallback cause=timeout
		5001 r2 end y value`
	if report := history.Check(parse(text, settings)); report.Unexplained != 1 || len(report.Violations) != 0 {
		t.Errorf("a short Redis timeout: %+v", report)
	}
	fast := history.Limits{Slack: 100 * time.Millisecond, Held: time.Second, Delivery: time.Second}
	report := fast.Check(parse(text, settings))
	expect(t, report, "P1")
	if report.Unexplained != 0 {
		t.Errorf("%d unexplained", report.Unexplained)
	}
}

func TestAFleetThatFailsClosedMayRefuseCalls(t *testing.T) {
	closed := settings
	closed.FailClosed = true
	text := `
		1000 driver fault pause * unusable
		1100 r1 call a
		1350 r1 return a none unavailable
		1400 driver faultend pause *`
	expect(t, history.Check(parse(text, closed)), "")
	expect(t, history.Check(parse(text, settings)), "P5")
}

func TestMaxAgeIsForValues(t *testing.T) {
	kept := settings
	kept.MaxAge = time.Second
	later := func(at int, role, outcome string) string {
		return fmt.Sprintf(`
		100 r1 call a
		102 r1 taken x
		103 r1 start x leader
		900 r1 end x %[3]s
		901 r1 return a leader %[3]s x
		905 r1 released x
		%[1]d r2 call b
		%[1]d.5 r2 return b %[2]s %[3]s x`, at, role, outcome)
	}
	for _, test := range []struct {
		at            int
		role, outcome string
		breaks        string
	}{
		{1890, "cached", "value", ""},
		{1900, "cached", "value", ""},
		{1902, "cached", "value", "P3"},
		{2600, "cached", "value", "P3"},
		{1890, "local-follower", "value", ""},
		{2600, "local-follower", "value", "P3"},
		{1890, "local-follower", "error", "P3"},
		{910, "cached", "error", "P3"},
	} {
		t.Run(fmt.Sprint(test.at, test.role, test.outcome), func(t *testing.T) {
			expect(t, history.Check(parse(later(test.at, test.role, test.outcome), kept)), test.breaks)
		})
	}
}

func BenchmarkCheck(b *testing.B) {
	const flights = 50_000 // of ten records each
	var records []history.Record
	for _, process := range []string{"r0", "r1", "r2", "r3"} {
		records = append(records, history.Record{Process: process, Kind: history.Begin, Settings: &settings})
	}
	for i := range flights {
		key, at := fmt.Sprint("k", i%50), int64(i/50)*20*ms+int64(i%50)*1000
		leads, follows := fmt.Sprint("r", i%4), fmt.Sprint("r", (i+1)%4)
		x, f := fmt.Sprint("x", i), fmt.Sprint("f", i)
		for _, r := range []history.Record{
			{Process: leads, Kind: history.Called, Call: x + "a"},
			{Process: leads, Kind: history.LeaseIs, Flight: f, State: "taken", Asked: at},
			{Process: leads, Kind: history.Started, Flight: f, Execution: x, Role: "leader"},
			{Process: leads, Kind: history.Called, Call: x + "b"},
			{Process: follows, Kind: history.Called, Call: x + "c"},
			{Process: leads, Kind: history.Ended, Flight: f, Execution: x, Outcome: history.Value},
			{Process: leads, Kind: history.Returned, Call: x + "a", Flight: f, Execution: x, Role: "leader", Outcome: history.Value},
			{Process: leads, Kind: history.Returned, Call: x + "b", Flight: f, Execution: x, Role: "local-follower", Outcome: history.Value},
			{Process: leads, Kind: history.LeaseIs, Flight: f, State: "released", Asked: at + ms},
			{Process: follows, Kind: history.Returned, Call: x + "c", Flight: f, Execution: x, Role: "remote-follower", Outcome: history.Value},
		} {
			at += ms / 2
			r.At, r.Key = at, key
			records = append(records, r)
		}
		if i%1000 == 0 {
			records = append(records,
				history.Record{At: at + 1, Process: "driver", Kind: history.FaultBegin, Fault: "cut", Effects: &history.Effects{Unusable: true}},
				history.Record{At: at + ms, Process: "driver", Kind: history.FaultEnd, Fault: "cut"},
				history.Record{At: at + ms + 1, Process: leads, Kind: history.Forget, Key: key, Call: x + "g"},
				history.Record{At: at + ms + 2, Process: leads, Kind: history.Forgotten, Key: key, Call: x + "g"})
		}
	}
	for _, process := range []string{"r0", "r1", "r2", "r3"} {
		records = append(records, history.Record{At: never, Process: process, Kind: history.Exit})
	}
	sortRecords(records)
	for b.Loop() {
		if report := history.Check(records); len(report.Violations) > 0 {
			b.Fatal(report.Violations[0])
		}
	}
	b.ReportMetric(float64(len(records)), "records")
}
