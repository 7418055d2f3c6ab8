package coalescetest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescetest"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

var errWrong = errors.New("a wrong error")

// mutants are wrong Groups, by what is wrong with them. A mutant is made anew for
// each subtest.
var mutants = map[string]func() mutant{
	"right": func() mutant { return mutant{} },
	"returns nothing": func() mutant {
		return returns(func(_ string, r coalesce.Role, err error) (string, coalesce.Role, error) { return "", r, err })
	},
	"everyone leads": func() mutant {
		return returns(func(v string, _ coalesce.Role, err error) (string, coalesce.Role, error) {
			return v, coalesce.Leader, err
		})
	},
	"followers are all local": func() mutant { return returns(localRoles) },
	"no role for who leaves":  func() mutant { return returns(noRoleWithError) },
	"another error": func() mutant {
		return returns(func(v string, r coalesce.Role, err error) (string, coalesce.Role, error) {
			if err != nil {
				err = errWrong
			}
			return v, r, err
		})
	},
	"followers retry errors": func() mutant {
		return ownCalls(func(role coalesce.Role, _ error) bool { return role != coalesce.Leader })
	},

	"panics are errors":            func() mutant { return panics(func(e *coalesce.PanicError, _ bool) error { return e }) },
	"followers' panics are errors": func() mutant { return panics(errorUnlessRan) },
	"panics without a wrapper":     func() mutant { return panics(func(e *coalesce.PanicError, _ bool) error { panic(e.Value) }) },
	"panics without a stack":       func() mutant { return panics(withoutStack) },
	"Goexit is an error":           func() mutant { return runs(exitAsError) },
	"nil functions are refused":    func() mutant { return calls(refuseNil) },
	"runs functions twice on errors": func() mutant {
		return runs(func(_, flight context.Context, fn function) (string, error) {
			if val, err := fn(flight); err == nil {
				return val, nil
			}
			return fn(flight)
		})
	},

	"ended contexts run":       func() mutant { return calls(ignoreEnd) },
	"causes instead of errors": func() mutant { return calls(returnCause) },
	"nobody can leave":         func() mutant { return calls(keepCallers) },
	"one caller's end is everyone's": func() mutant {
		return runs(func(caller, _ context.Context, fn function) (string, error) { return fn(caller) })
	},
	"functions are never cancelled": func() mutant {
		return runs(func(_, flight context.Context, fn function) (string, error) { return fn(context.WithoutCancel(flight)) })
	},
	"no values": func() mutant {
		return runs(func(_, flight context.Context, fn function) (string, error) { return fn(noValues{flight}) })
	},
	"the latest caller's values": latestValues,
	"joins cancelled functions":  func() mutant { return calls(joinsCancelled) },
	"hands out cancellations":    func() mutant { return calls(handsOutCancellations) },
	"leaders retry what they abandoned": func() mutant {
		return ownCalls(func(role coalesce.Role, err error) bool { return errors.Is(err, context.Canceled) })
	},

	"caches":             func() mutant { return caches(func(coalesce.Role) bool { return true }) },
	"caches what shared": func() mutant { return caches(func(role coalesce.Role) bool { return role == coalesce.LocalFollower }) },
	"one at a time":      oneAtATime,

	"keys are trimmed":     func() mutant { return calling(strings.TrimSpace) },
	"keys are folded":      func() mutant { return calling(strings.ToLower) },
	"keys are valid UTF-8": func() mutant { return calling(func(key string) string { return strings.ToValidUTF8(key, "?") }) },
	"keys end at a zero": func() mutant {
		return calling(func(key string) string { key, _, _ = strings.Cut(key, "\x00"); return key })
	},
	"keys end at a brace":           func() mutant { return calling(untilBrace) },
	"keys are cut off":              func() mutant { return calling(func(key string) string { return key[:min(len(key), 300)] }) },
	"keys end at a brace elsewhere": func() mutant { return calls(elsewhere) },
	"keys are all the same":         func() mutant { return calling(func(string) string { return "key" }) },
	"Forget does nothing":           func() mutant { return forgets(func(*mutant, context.Context, ...string) error { return nil }) },
	"Forget takes one key":          func() mutant { return forgets(forgetFirst) },
	"Forget forgets all":            forgetsAll,
	"Forget needs a flight":         func() mutant { return forgets(func(*mutant, context.Context, ...string) error { return errWrong }) },
	"ends forget newer flights":     func() mutant { return calls(forgetsAtTheEnd) },

	"batches call for each key":           func() mutant { return manys(eachKey) },
	"batches sort their keys":             func() mutant { return manyCalls(slices.Sort) },
	"batches repeat keys":                 func() mutant { return manys(repeatKeys) },
	"batches run without keys":            func() mutant { return manys(runWithoutKeys) },
	"batches leave out what has failed":   func() mutant { return manyReturns(leaveOut) },
	"batches have a zero for no result":   func() mutant { return manyReturns(zeroForNone) },
	"a batch's error is the call's":       func() mutant { return manys(errorOfAll) },
	"BatchErrors fail all keys":           func() mutant { return manyRuns(failAll) },
	"values beside a batch's error":       func() mutant { return manyRuns(ignoreErrors) },
	"batches' panics are errors":          func() mutant { return manys(panicsAsErrors) },
	"batches' panics have no stack":       func() mutant { return manys(panicsWithoutStack) },
	"followed panics are the batch's":     func() mutant { return manys(panicsOfOthers) },
	"batches survive Goexit":              func() mutant { return manyRuns(survivesExit) },
	"batches run with an ended context":   func() mutant { return manys(manyIgnoreEnd) },
	"batches have no values":              func() mutant { return manyRuns(manyNoValues) },
	"batches lead everything":             func() mutant { return manys(manyLeads) },
	"batches follow nothing":              func() mutant { return manys(manyAlone) },
	"batches return when all are there":   func() mutant { return manys(waitsWithItsFunction) },
	"batches cannot leave":                func() mutant { return manys(manyStay) },
	"a batch's end is everyone's":         func() mutant { return manys(manyCallersContext) },
	"batches are never cancelled":         func() mutant { return manyRuns(manyNeverCancelled) },
	"batches hand out cancellations":      func() mutant { return manyRuns(manyHidesCancellations) },
	"batches do not take over":            func() mutant { return manys(takesNothingOver) },
	"batches forget each other":           func() mutant { return manys(forgetsFirst) },
	"batches of other replicas are alone": func() mutant { return manys(aloneElsewhere) },
	"other replicas' batches lose errors": func() mutant { return manyReturns(losesErrors) },

	"other replicas' errors lose their identity": func() mutant {
		return remoteErrors(func(err error) error { return errors.New(err.Error()) })
	},
	"other replicas' errors lose their message": func() mutant {
		return remoteErrors(func(err error) error { return fmt.Errorf("failed elsewhere%w", silent{err}) })
	},
	"other replicas' panics run again": func() mutant {
		return ownCalls(func(_ coalesce.Role, err error) bool {
			return errors.Is(err, coalesce.ErrRemotePanic) || errors.Is(err, coalesce.ErrGoexit)
		})
	},
}

const (
	merging    = "merging"
	separate   = "separate"
	overAFleet = "over a fleet"
	// overANetwork is a fleet that says how many callers wait: it is checked in
	// no bubble.
	overANetwork = "over a network"
)

// caught says which mutants each behaviour finds out, and on which kind of Group
// the mutants stand.
var caught = []struct {
	behaviour, kind string
	mutants         []string
}{
	{"a lone caller leads and gets the result of its function", merging, []string{"returns nothing"}},
	{"an error reaches the caller as it is", merging, []string{"another error", "runs functions twice on errors"}},
	{"a panic reaches the caller as a PanicError with the original stack", merging, []string{"panics are errors", "panics without a wrapper", "panics without a stack"}},
	{"Goexit exits the caller's goroutine", merging, []string{"Goexit is an error"}},
	{"a nil function panics in its caller", merging, []string{"nil functions are refused", "panics are errors"}},
	{"a context that has ended before the call runs nothing", merging, []string{"ended contexts run"}},
	{"the function sees the values of its caller's context", merging, []string{"no values"}},
	{"a caller that leaves gets its context's error", merging, []string{"nobody can leave", "no role for who leaves", "functions are never cancelled", "causes instead of errors"}},
	{"a flight that has finished is gone", merging, []string{"caches"}},
	{"a function may call for another key", merging, []string{"one at a time"}},
	{"keys of any bytes are distinct", merging, []string{"keys are trimmed", "keys are folded", "keys are valid UTF-8", "keys end at a zero", "keys end at a brace", "keys are cut off", "keys are all the same"}},
	{"flights of many keys run at the same time", merging, []string{"one at a time", "keys are all the same"}},
	{"Forget of keys that nobody calls for does nothing", merging, []string{"Forget needs a flight"}},
	{"each of several callers runs its own function", separate, []string{"merges"}},
	{"overlapping callers in one process share one execution", merging, []string{"everyone runs", "everyone leads"}},
	{"an error runs once and reaches every caller in the process", merging, []string{"followers retry errors", "another error", "everyone runs"}},
	{"a panic reaches every caller in the process with the original stack", merging, []string{"followers' panics are errors", "panics without a stack", "panics are errors"}},
	{"Goexit exits the goroutine of every caller in the process", merging, []string{"Goexit is an error"}},
	{"the nil function of a follower is not called", merging, []string{"nil functions are refused", "everyone runs"}},
	{"the function has the values of the first caller's context", merging, []string{"the latest caller's values", "no values"}},
	{"a call after the end of a shared flight starts a new one", merging, []string{"caches what shared"}},
	{"a function that returns a cancellation of its own is abandoned and another leads", merging, []string{"hands out cancellations"}},
	{"callers that all abandon run their function once each", merging, []string{"leaders retry what they abandoned", "hands out cancellations"}},
	{"a follower that leaves returns at once and hurts nobody", merging, []string{"nobody can leave"}},
	{"a leader that leaves returns at once and hurts nobody", merging, []string{"nobody can leave", "one caller's end is everyone's"}},
	{"the last caller to leave cancels the function's context", merging, []string{"functions are never cancelled", "one caller's end is everyone's"}},
	{"a cancelled flight is not joined", merging, []string{"joins cancelled functions"}},
	{"a function that uses the context of a caller that leaves hurts nobody else", merging, []string{"hands out cancellations"}},
	{"callers after Forget start a new flight and those that wait keep theirs", merging, []string{"Forget does nothing", "one at a time"}},
	{"the end of a forgotten flight leaves the new one in place", merging, []string{"ends forget newer flights"}},
	{"Forget forgets each of several keys", merging, []string{"Forget takes one key", "Forget does nothing"}},
	{"Forget of one key leaves the others alone", merging, []string{"Forget forgets all"}},

	{"a batch runs its function once for all keys in their order", merging, []string{"batches call for each key", "batches sort their keys", "batches repeat keys", "batches follow nothing"}},
	{"a batch of no keys runs nothing", merging, []string{"batches run without keys"}},
	{"a key that a batch's function has no result for gets ErrNoResult", merging, []string{"batches leave out what has failed", "batches have a zero for no result"}},
	{"an error of a batch's function is every key's", merging, []string{"a batch's error is the call's", "values beside a batch's error", "batches leave out what has failed"}},
	{"a BatchError fails its keys alone", merging, []string{"BatchErrors fail all keys", "values beside a batch's error"}},
	{"a panic of a batch's function reaches its caller as a PanicError with the original stack", merging, []string{"batches' panics are errors", "batches' panics have no stack"}},
	{"Goexit in a batch's function exits the caller's goroutine", merging, []string{"batches survive Goexit"}},
	{"a batch whose context has ended before the call runs nothing", merging, []string{"batches run with an ended context"}},
	{"a batch's function sees the values of its caller's context", merging, []string{"batches have no values"}},
	{"a batch follows the keys that others run and runs its function for the others", merging, []string{"batches lead everything", "batches follow nothing"}},
	{"a batch's function does not wait for keys that the batch follows", merging, []string{"batches return when all are there"}},
	{"single calls and batches follow a batch's keys", merging, []string{"batches follow nothing", "batches lead everything"}},
	{"another function's error or panic is its key's alone", merging, []string{"followed panics are the batch's"}},
	{"keys of abandoned flights are led by a batch that followed", merging, []string{"batches do not take over"}},
	{"a batch's key that is abandoned is led by another and the rest is not", merging, []string{"batches hand out cancellations"}},
	{"after Forget of a batch's key a new flight starts and the others are followed", merging, []string{"batches forget each other", "Forget does nothing"}},
	{"a batch that leaves returns at once and leaves its keys to those who follow", merging, []string{"batches cannot leave", "a batch's end is everyone's"}},
	{"a batch's function is cancelled when nobody waits for any of its keys", merging, []string{"batches are never cancelled", "a batch's end is everyone's"}},
	{"a key of a batch that nobody waits for is not joined", merging, []string{"batches cannot leave"}},

	{"batches on several replicas share their keys' executions", overAFleet, []string{"batches of other replicas are alone", "batches follow nothing"}},
	{"each key's error reaches the batches of other replicas", overAFleet, []string{"other replicas' batches lose errors", "BatchErrors fail all keys"}},
	{"a batch's panic is ErrRemotePanic for each of its keys on other replicas", overAFleet, []string{"other replicas' batches lose errors"}},
	{"a batch that leaves hurts nobody on other replicas", overAFleet, []string{"a batch's end is everyone's", "batches cannot leave"}},
	{"batches on several replicas share their keys' executions", overANetwork, []string{"batches of other replicas are alone"}},

	{"overlapping callers in the fleet share one execution", overAFleet, []string{"each replica is alone", "followers are all local", "everyone leads"}},
	{"a call after the end of a fleet's flight starts a new one", overAFleet, []string{"caches"}},
	{"keys of any bytes are distinct over the fleet", overAFleet, []string{"keys end at a brace elsewhere"}},
	{"after Forget its replica starts a new flight and the fleet's callers keep theirs", overAFleet, []string{"Forget does nothing", "ends forget newer flights"}},
	{"an abandoned flight is led by another replica", overAFleet, []string{"hands out cancellations"}},
	{"an error runs once and reaches every replica with its message", overAFleet, []string{"followers retry errors", "other replicas' errors lose their message"}},
	{"errors.Is finds a registered error on every replica", overAFleet, []string{"other replicas' errors lose their identity"}},
	{"errors.As finds an error of a registered type on every replica with its fields", overAFleet, []string{"other replicas' errors lose their identity"}},
	{"a panic runs once and is ErrRemotePanic on other replicas", overAFleet, []string{"other replicas' panics run again", "other replicas' errors lose their identity"}},
	{"Goexit runs once and is ErrGoexit on other replicas", overAFleet, []string{"other replicas' panics run again", "other replicas' errors lose their identity"}},
	{"a follower on another replica that leaves returns at once and hurts nobody", overAFleet, []string{"nobody can leave", "no role for who leaves"}},
	{"a leader that leaves hurts nobody on other replicas", overAFleet, []string{"one caller's end is everyone's"}},
	{"the last caller in the fleet to leave cancels the function's context", overAFleet, []string{"functions are never cancelled"}},
	{"a leader that leaves after its remote followers cancels the function's context", overAFleet, []string{"functions are never cancelled"}},

	{"overlapping callers in the fleet share one execution", overANetwork, []string{"each replica is alone", "followers are all local"}},
	{"a panic runs once and is ErrRemotePanic on other replicas", overANetwork, []string{"other replicas' panics run again"}},
	{"an error runs once and reaches every caller in the process", overANetwork, []string{"followers retry errors"}},
}

// mutantHarness makes wrong Groups of a kind.
func mutantHarness(name, kind string) coalescetest.Harness {
	fleet := kind == overAFleet || kind == overANetwork
	h := coalescetest.Harness{Merges: kind != separate, Fleet: fleet}
	if kind == overANetwork {
		h.Waiting = func(g coalesce.Group[string]) int {
			if wrong, ok := g.(*mutant); ok {
				g = wrong.Group
			}
			return g.(*coalescetest.Group[string]).Waiting()
		}
	}
	h.Replicas = func(t *testing.T, n int) []coalesce.Group[string] {
		var groups []coalesce.Group[string]
		switch {
		case name == "everyone runs":
			return []coalesce.Group[string]{coalesce.Off[string]{}}
		case name == "merges":
			return []coalesce.Group[string]{local.Tier(new(local.Group[string, string]))}
		case name == "each replica is alone":
			for range n {
				groups = append(groups, newReplicas(t, 1)...)
			}
			return groups
		}
		groups = newReplicas(t, n)
		shared := new(sync.Map)
		m := mutants[name]()
		for i, g := range groups {
			wrong := m
			wrong.Group, wrong.replica, wrong.shared = g, i, shared
			groups[i] = &wrong
		}
		return groups
	}
	return h
}

// exercised runs the suite, or one behaviour of it, in a process of its own, and
// returns what that printed. It has failed when err is not nil.
func exercised(t *testing.T, name, kind, behaviour string) (output string, err error) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	pattern := ".*"
	if behaviour != "" {
		pattern = strings.ReplaceAll(regexp.QuoteMeta(behaviour), " ", "_")
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.timeout=1m",
		"-test.run=^TestExerciseOfOneMutant$/^contexts/^"+pattern+"$")
	cmd.Env = append(os.Environ(), mutantVariable+"="+name, kindVariable+"="+kind)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const mutantVariable, kindVariable = "FLEETCALL_TEST_MUTANT", "FLEETCALL_TEST_KIND"

// TestExerciseOfOneMutant runs in a process of its own, which fails.
func TestExerciseOfOneMutant(t *testing.T) {
	name, kind := os.Getenv(mutantVariable), os.Getenv(kindVariable)
	if name == "" {
		return // it has something to do when TestEveryBehaviourFindsItsMutantsOut runs it
	}
	coalescetest.Exercise(t, mutantHarness(name, kind))
}

// complaint is a line that the suite itself has written.
var complaint = regexp.MustCompile(`(?m)^\s+exercise_\w+\.go:\d+: .*$`)

func TestEveryBehaviourFindsItsMutantsOut(t *testing.T) {
	for _, c := range caught {
		for _, name := range c.mutants {
			t.Run(c.behaviour+"/"+name, func(t *testing.T) {
				t.Parallel()
				out, err := exercised(t, name, c.kind, c.behaviour)
				failed := strings.Contains(out, "--- FAIL: TestExerciseOfOneMutant/contexts_")
				if found := complaint.FindString(out); err == nil || !failed || found == "" {
					t.Errorf("it was not found out (%v):\n%s", err, out)
				} else {
					t.Log(strings.TrimSpace(found))
				}
			})
		}
	}
}

// TestEveryBehaviourHasAMutant keeps the list above complete.
func TestEveryBehaviourHasAMutant(t *testing.T) {
	ran := regexp.MustCompile(`(?m)^=== RUN   \w+/contexts_[^/\n]+/(.+)$`)
	listed, used := map[string]bool{}, []string{"everyone runs", "merges", "each replica is alone"}
	for _, c := range caught {
		listed[strings.ReplaceAll(c.behaviour, " ", "_")] = true
		used = append(used, c.mutants...)
	}
	for _, kind := range []string{separate, overAFleet} {
		out, _ := exercised(t, map[string]string{separate: "everyone runs", overAFleet: "right"}[kind], kind, "")
		all := ran.FindAllStringSubmatch(out, -1)
		if len(all) < 10 {
			t.Errorf("the suite ran %d behaviours:\n%s", len(all), out)
		}
		for _, match := range all {
			if !listed[match[1]] {
				t.Errorf("no mutant is known that fails %q", match[1])
			}
		}
	}
	for name := range mutants {
		if name != "right" && !slices.Contains(used, name) {
			t.Errorf("nothing finds out the mutant %q", name)
		}
	}
}
