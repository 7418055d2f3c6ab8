package history_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

func TestAFleetThatKeepsItsPromisesIsAccepted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := simulate(t, rapid.Bool().Draw(t, "calm"))
		for _, v := range history.Check(records).Violations {
			t.Errorf("%v", v)
		}
	})
}

// breach changes a history so that it breaks a promise. It returns false if the history
// offers no place for it.
type breach struct {
	name   string
	breaks []string // one of these must be found
	calm   bool     // only in histories in which no fault could excuse it
	do     func(t *rapid.T, h *mutableHistory) bool
}

var breaches = []breach{
	{"a missing return", []string{"P2"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, func(r history.Record) bool { return r.Kind == history.Returned && h.exits(r.Process) }, h.remove)
	}},
	{"a late return", []string{"P2"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) { h.records[i].At += 3600 * second })
	}},
	{"a return too many", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) { h.records = append(h.records, h.records[i]) })
	}},
	{"a made-up result", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, hasResult, func(i int) { h.records[i].Execution = "nobody's" })
	}},
	{"a swapped result", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, hasResult, func(i int) {
			r := &h.records[i]
			for _, other := range h.records {
				if other.Kind == history.Ended && other.Key != r.Key {
					r.Execution, r.Flight, r.Outcome = other.Execution, other.Flight, other.Outcome
				}
			}
			if h.executions[r.Execution].Key == r.Key {
				r.Key = "another"
			}
		})
	}},
	{"a value that is an error", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, outcome(history.Value), func(i int) { h.records[i].Outcome = history.KnownError })
	}},
	{"an error that is not recognised", []string{"P7"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, outcome(history.KnownError), func(i int) { h.records[i].Outcome = history.OtherError })
	}},
	{"a panic that is an error", []string{"P6"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, outcome(history.Panic), func(i int) { h.records[i].Outcome = history.OtherError })
	}},
	{"a cancelled result", []string{"P7"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, hasResult, func(i int) {
			j := h.index(history.Ended, h.records[i].Execution)
			h.records[j].Outcome = history.Cancelled
		})
	}},
	{"an execution without an end", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, hasResult, func(i int) { h.remove(h.index(history.Ended, h.records[i].Execution)) })
	}},
	{"a result too early", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, hasResult, func(i int) { h.records[i].At = h.executions[h.records[i].Execution].At - 1 })
	}},
	{"a leader without lease", []string{"P1"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isLeader, func(i int) {
			flight := h.records[i].Flight
			h.remove(slices.IndexFunc(h.records, func(r history.Record) bool { return r.State == "taken" && r.Flight == flight }))
		})
	}},
	{"a flight that runs twice", []string{"P1"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isLeader, func(i int) {
			again := h.records[i]
			again.Execution += "again"
			h.records = append(h.records, again)
		})
	}},
	{"an unavailable Redis", []string{"P5"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) {
			h.records[i].Outcome, h.records[i].Execution, h.records[i].Flight = history.Unavailable, "", ""
		})
	}},
	{"a strange outcome", []string{"hurt"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) {
			h.records[i].Outcome, h.records[i].Execution, h.records[i].Flight = history.Strange, "", ""
		})
	}},
	{"a vanished process", []string{"log"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, func(r history.Record) bool { return r.Kind == history.Exit }, h.remove)
	}},

	{"a second lease", []string{"P1"}, true, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, func(r history.Record) bool {
			return isLeader(r) && h.ends[r.Execution] > r.At+200*ms
		}, func(i int) { h.lead(h.other(h.records[i].Process), h.records[i].Key, "second", h.records[i].At+100*ms) })
	}},
	{"a fallback without reason", []string{"P1"}, true, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isLeader, func(i int) { h.records[i].Role, h.records[i].Cause = "fallback", "connection" })
	}},
	{"a stale result", []string{"P3"}, true, func(t *rapid.T, h *mutableHistory) bool {
		stale := h.pairs(func(call, end history.Record) bool { return end.At < call.At })
		return h.give(t, stale, "remote-follower")
	}},
	{"a stale result on the leader's replica", []string{"P3"}, true, func(t *rapid.T, h *mutableHistory) bool {
		stale := h.pairs(func(call, end history.Record) bool {
			return call.Process == h.executions[end.Execution].Process && call.At > h.firstReturn(end.Execution, call.Process)
		})
		return h.give(t, stale, "local-follower")
	}},
	{"a forgotten result", []string{"P4"}, true, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, func(r history.Record) bool {
			return hasResult(r) && h.calls[r.Call].At > h.executions[r.Execution].At+2*ms
		}, func(i int) {
			r, at := h.records[i], h.executions[h.records[i].Execution].At
			h.records = append(h.records,
				history.Record{At: at + ms, Process: r.Process, Kind: history.Forget, Key: r.Key, Call: "forgets"},
				history.Record{At: at + ms + 1, Process: r.Process, Kind: history.Forgotten, Key: r.Key, Call: "forgets"})
		})
	}},
	{"a failure that is tried again", []string{"P6", "P7"}, true, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, func(r history.Record) bool {
			start, end := h.executions[r.Execution], h.ends[r.Execution]
			return hasResult(r) && r.Outcome != history.Value && start.Role == "leader" &&
				max(start.At, h.calls[r.Call].At)+600*ms < end
		}, func(i int) {
			r := &h.records[i]
			at := h.ends[r.Execution] + 50*ms
			r.Execution, r.Flight, r.Role, r.Outcome, r.At = "again", "f-again", "leader", history.Value, at+200*ms
			h.lead(r.Process, r.Key, "again", at)
		})
	}},
	{"a key that is poisoned by nobody", []string{"hurt"}, true, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) {
			h.records[i].Outcome, h.records[i].Execution, h.records[i].Flight = history.Poisoned, "", ""
		})
	}},
	{"a refused call", []string{"hurt"}, false, func(t *rapid.T, h *mutableHistory) bool {
		return h.change(t, isReturn, func(i int) {
			h.records[i].Outcome, h.records[i].Execution, h.records[i].Flight = history.Closed, "", ""
		})
	}},
}

func TestABreachOfAPromiseIsFound(t *testing.T) {
	for _, b := range breaches {
		t.Run(b.name, func(t *testing.T) {
			done := 0
			rapid.Check(t, func(t *rapid.T) {
				h := newMutable(simulate(t, b.calm || rapid.Bool().Draw(t, "calm")))
				if !b.do(t, h) {
					return
				}
				done++
				sortRecords(h.records)
				report := history.Check(h.records)
				if !slices.ContainsFunc(report.Violations, func(v history.Violation) bool { return slices.Contains(b.breaks, v.Promise) }) {
					t.Errorf("not found; what was: %v", report.Violations)
				}
			})
			if done < 20 {
				t.Errorf("there were only %d histories to break", done)
			}
		})
	}
}

// mutableHistory is a history that can be changed, with indexes that breaches need.
type mutableHistory struct {
	records    []history.Record
	calls      map[string]history.Record // by name
	executions map[string]history.Record // the start records
	ends       map[string]int64
}

func newMutable(records []history.Record) *mutableHistory {
	h := &mutableHistory{records, map[string]history.Record{}, map[string]history.Record{}, map[string]int64{}}
	for _, r := range records {
		switch r.Kind {
		case history.Called:
			h.calls[r.Call] = r
		case history.Started:
			h.executions[r.Execution] = r
		case history.Ended:
			h.ends[r.Execution] = r.At
		}
	}
	return h
}

func isReturn(r history.Record) bool  { return r.Kind == history.Returned }
func hasResult(r history.Record) bool { return r.Kind == history.Returned && r.Execution != "" }
func isLeader(r history.Record) bool  { return r.Kind == history.Started && r.Role == "leader" }

func outcome(o history.Outcome) func(history.Record) bool {
	return func(r history.Record) bool { return hasResult(r) && r.Outcome == o }
}

// change calls do with the index of one of the records that want selects.
func (h *mutableHistory) change(t *rapid.T, want func(history.Record) bool, do func(i int)) bool {
	var places []int
	for i, r := range h.records {
		if want(r) {
			places = append(places, i)
		}
	}
	if len(places) == 0 {
		return false
	}
	do(rapid.SampledFrom(places).Draw(t, "place"))
	return true
}

func (h *mutableHistory) remove(i int) { h.records = slices.Delete(h.records, i, i+1) }

func (h *mutableHistory) index(kind history.Kind, execution string) int {
	return slices.IndexFunc(h.records, func(r history.Record) bool { return r.Kind == kind && r.Execution == execution })
}

func (h *mutableHistory) exits(process string) bool {
	return slices.ContainsFunc(h.records, func(r history.Record) bool { return r.Kind == history.Exit && r.Process == process })
}

func (h *mutableHistory) other(process string) string {
	if process == "r0" {
		return "r1"
	}
	return "r0"
}

// lead adds a flight of 100 ms that the process leads from at on.
func (h *mutableHistory) lead(process, key, execution string, at int64) {
	r := history.Record{Process: process, Key: key, Flight: "f-" + execution}
	taken, start, end := r, r, r
	taken.At, taken.Kind, taken.State, taken.Asked = at, history.LeaseIs, "taken", at-ms
	start.At, start.Kind, start.Execution, start.Role = at+1, history.Started, execution, "leader"
	end.At, end.Kind, end.Execution, end.Outcome = at+100*ms, history.Ended, execution, history.Value
	h.records = append(h.records, taken, start, end)
}

// pair has the indexes of a return and of the end of another execution.
type pair struct{ returned, end int }

func (h *mutableHistory) pairs(want func(call, end history.Record) bool) (pairs []pair) {
	for i, r := range h.records {
		if !hasResult(r) {
			continue
		}
		for j, end := range h.records {
			if end.Kind == history.Ended && end.Key == r.Key && want(h.calls[r.Call], end) {
				pairs = append(pairs, pair{i, j})
			}
		}
	}
	return pairs
}

// give changes a call so that it gets the result of another execution.
func (h *mutableHistory) give(t *rapid.T, pairs []pair, role string) bool {
	if len(pairs) == 0 {
		return false
	}
	chosen := rapid.SampledFrom(pairs).Draw(t, "pair")
	r, end := &h.records[chosen.returned], h.records[chosen.end]
	r.Execution, r.Flight, r.Outcome, r.Role = end.Execution, end.Flight, end.Outcome, role
	return true
}

// firstReturn returns when the first call of the process returned with the execution's
// result. It returns never if none did.
func (h *mutableHistory) firstReturn(execution, process string) int64 {
	for _, r := range h.records {
		if r.Kind == history.Returned && r.Execution == execution && r.Process == process {
			return r.At
		}
	}
	return never
}
