// Package docs checks claims of the documents.
package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// searches are the settings with which spin searches a model.
type searches struct {
	kept     []kept
	broken   []broken
	possible []possible
}

type (
	// kept are settings with which the model keeps every promise. Spin searches them
	// completely. Those with the longest searches come first.
	kept struct{ when, settings string }
	// broken are settings with which the model must break this promise first.
	broken struct{ settings, promise string }
	// possible is an event that must be able to happen. Otherwise the model would prove
	// little.
	possible struct{ settings, event string }
)

var protocol = searches{
	kept: []kept{
		{"a key is forgotten that a replica follows", "FACING=1 FORGETS=1"},
		{"of three replicas two die, and a command fails", "REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 CRASHES=2 FAILURES=1"},
		{"of three replicas two die, and Redis runs a finish late", "REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 CRASHES=2 LATE_FINISHES=1"},
		{"Redis hangs: no key is poisoned", "HOT=1 HANGS=1 ATTEMPTS=2 WITNESS_POISONED=1"},
		{"a key is forgotten and a connection breaks twice", "CALLERS=2 TOGETHER=1 FORGETS=1 RECONNECTS=2"},
		{"a key is forgotten, a connection breaks and a message is lost", "CALLERS=2 FORGETS=1 RECONNECTS=1 LOSSES=1"},
		{"a key is forgotten, and the notice is lost that its followers get", "FACING=1 HOT=1 FORGETS=1 ALIVE=1 LOST_NOTICES=1"},
		{"a key is forgotten while its leader is stopped", "CALLERS=2 FORGETS=1 STOPS=1"},
		{"a key is forgotten and Redis loses everything", "CALLERS=2 FORGETS=1 FLUSHES=1"},
		{"a key is forgotten and a lease vanishes", "CALLERS=2 FORGETS=1 VANISHES=1"},
		{"a key with a large outcome is forgotten", "CALLERS=2 FORGETS=1 LARGE=1"},
		{"a key is forgotten twice", "CALLERS=2 TOGETHER=1 FORGETS=2"},
		{"a lease vanishes and a leader is stopped", "REPLICAS=3 APART=1 HOT=1 VANISHES=1 STOPS=1"},
		{"Redis runs a join late", "HOT=1 LATE_JOINS=1"},
		{"three replicas subscribe", "REPLICAS=3 APART=1"},
		{"a lease vanishes and two of three replicas die", "REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 VANISHES=1 CRASHES=2"},
		{"Redis runs a join and a finish late, commands fail and a message is lost", "CALLERS=2 LATE_JOINS=1 LATE_FINISHES=1 FAILURES=2 LOSSES=1"},
		{"Redis runs a finish late", "HOT=1 LATE_FINISHES=1"},
		{"a command fails", "HOT=1 FAILURES=1"},
		{"a replica dies", "CRASHES=1"},
		{"a leader gives up", "SHUTDOWNS=1"},
		{"a lease vanishes and all callers of a flight leave", "HOT=1 VANISHES=1 LEAVERS=1"},
		{"a renewal is late, a lease vanishes and the key is forgotten", "CALLERS=2 LATE_RENEWALS=1 VANISHES=1 FORGETS=1"},
		{"a key is forgotten and Redis hangs", "CALLERS=2 FORGETS=1 HANGS=1"},
		{"a key is forgotten and a command fails", "CALLERS=2 FORGETS=1 FAILURES=1"},
		{"Redis runs a renewal late", "HOT=1 LATE_RENEWALS=1"},
		{"Redis hangs for ever", "HOT=1 HANGS=1 THAWS=0"},
		{"Redis hangs twice, and runs a join and a renewal late", "CALLERS=2 ATTEMPTS=1 HANGS=2 LATE_JOINS=1 LATE_RENEWALS=1"},
		{"Redis hangs and runs a join late, two replicas die and the key is poisoned", "CALLERS=2 ATTEMPTS=1 HANGS=1 CRASHES=2 LATE_JOINS=1"},
		{"Redis loses everything", "HOT=1 FLUSHES=1"},
		{"leases vanish: no key is poisoned", "HOT=1 ATTEMPTS=1 VANISHES=2 WITNESS_POISONED=1"},
		{"leases vanish, Redis loses everything, and a message is lost", "CALLERS=2 VANISHES=2 FLUSHES=1 LOSSES=1"},
		{"a lease vanishes, and nobody looks when a lease has run out", "HOT=1 VANISHES=1 LEASE_TIMER=0"},
		{"all callers leave, and nobody looks when a lease has run out", "LEAVERS=2 LEASE_TIMER=0"},
		{"callers leave, a leader gives up, a command fails, a join is late and a message is lost", "CALLERS=2 LEAVERS=1 SHUTDOWNS=1 FAILURES=1 LATE_JOINS=1 LOSSES=1"},
		{"all callers of a flight leave", "HOT=1 LEAVERS=1"},
		{"all callers leave a function that has no end", "LEAVERS=3 ENDLESS=1"},
		{"all callers of three replicas leave a function that has no end", "REPLICAS=3 APART=1 LEAVERS=3 ENDLESS=1"},
		{"all callers leave a function that has no end, and the key is forgotten", "CALLERS=2 LEAVERS=2 ENDLESS=1 FORGETS=1"},
		{"a leader is stopped", "HOT=1 STOPS=1"},
		{"of three replicas two die", "REPLICAS=3 APART=1 HOT=1 ATTEMPTS=2 CRASHES=2"},
		{"a replica dies and the key is poisoned", "HOT=1 ATTEMPTS=1 CRASHES=1"},
		{"a message is lost", "HOT=1 LOSSES=1"},
		{"leaders say that they live, and a message is lost", "HOT=1 ALIVE=1 LOSSES=1"},
		{"leaders say that they live, and one dies", "CALLERS=2 ALIVE=2 CRASHES=1 LOSSES=1"},
		{"outcomes are large, and seem older than they are", "HOT=1 LARGE=1 EARLY=2"},
		{"outcomes are large, and a leader dies while it stores one", "HOT=1 LARGE=1 CRASHES=1"},
		{"outcomes are large, and leases vanish while they are stored", "CALLERS=2 LARGE=1 VANISHES=2"},
		{"outcomes are large, and a leader is stopped while it stores one", "HOT=1 LARGE=1 STOPS=1"},
		{"outcomes are large, commands fail and pieces expire", "CALLERS=2 LARGE=1 FAILURES=2 EXPIRIES=1 LOSSES=1"},
		{"outcomes are large, and nobody looks when a lease has run out", "LARGE=1 LEASE_TIMER=0"},
		{"nothing fails, and nobody looks when a lease has run out", "LEASE_TIMER=0"},
		{"a leader gives up, and nobody looks when a lease has run out", "SHUTDOWNS=1 LEASE_TIMER=0"},
		{"a leader is stopped, commands fail and a message is lost", "CALLERS=2 STOPS=1 FAILURES=2 LOSSES=1"},
		{"a leader is stopped, a message lost, and a large outcome expired", "CALLERS=2 STOPS=1 LOSSES=1 EXPIRIES=1 LARGE=1 EARLY=1"},
		{"a join is late, and nobody looks when a lease has run out", "CALLERS=2 LATE_JOINS=1 LEASE_TIMER=0"},
		{"a key is poisoned", "CALLERS=2 ATTEMPTS=1 CRASHES=2 LOSSES=1"},
	},
	broken: []broken{
		{"BREAK_JOIN_IGNORES_LEASE=1", "P1_one_flight"},
		{"REPLICAS=3 APART=1 STOPS=1 BREAK_FINISH_DELETES_FOREIGN_LEASE=1", "P1_one_flight"},
		{"REPLICAS=3 APART=1 HOT=1 VANISHES=1 BREAK_RENEW_TAKES_FOREIGN_LEASE=1", "P1_one_flight"},
		{"CALLERS=2 BREAK_NO_RENEWAL=1", "P1_flight_kept_while_renewed"},
		{"CALLERS=2 FORGETS=1 BREAK_RENEW_FORGETS_DETACHED=1", "P1_flight_kept_while_renewed"},
		{"CALLERS=2 FORGETS=1 BREAK_FORGET_DETACHES_NOTHING=1", "P1_flight_kept_while_renewed"},
		{"CALLERS=2 LARGE=1 BREAK_STORE_NOT_RENEWED=1", "P1_flight_kept_while_renewed"},
		{"CALLERS=2 FLUSHES=1 BREAK_RENEW_DETACHES_NOTHING=1", "P1_flight_kept_while_renewed"},
		{"CALLERS=2 VANISHES=1 BREAK_PEEK_IGNORES_STRIKE=1", "P1_flight_kept_while_renewed"},
		{"REPLICAS=3 APART=1 HOT=1 VANISHES=1 BREAK_FINISH_CLEARS_LIVING_STRIKES=1", "P1_vacant_lease_taken_again"},
		{"CALLERS=2 LARGE=1 BREAK_NOTICE_BEFORE_PIECES=1", "P2_outcome_found"},
		{"CALLERS=2 LOSSES=1 LEASE_TIMER=0", waiterLeft},
		{"CALLERS=2 ALIVE=1 LOSSES=1 BREAK_ALIVE_STOPS_LEASE_TIMER=1", waiterLeft},
		{"CALLERS=2 LARGE=1 LEASE_TIMER=0 BREAK_ASK_IGNORES_MARK=1", waiterLeft},
		{"CALLERS=2 CRASHES=1 LEASE_TIMER=0", waiterLeft},
		{"CALLERS=2 LEASE_TIMER=0 BREAK_SUBSCRIBE_WITHOUT_PEEK=1", waiterLeft},
		{"CALLERS=2 LEASE_TIMER=0 BREAK_JOIN_LEAVES_NO_MARK=1", waiterLeft},
		{"CALLERS=2 LEASE_TIMER=0 SHUTDOWNS=1 BREAK_ABANDON_SAYS_NOTHING=1", waiterLeft},
		{"CALLERS=2 LEASE_TIMER=0 LATE_JOINS=1 BREAK_JOIN_COMES_AFTER_ABANDON=1", waiterLeft},
		{"LEAVERS=2 LEASE_TIMER=0 BREAK_REPEATED_LEAVE_COUNTS=1", waiterLeft},
		{"CALLERS=2 HANGS=1 THAWS=0 BREAK_WAITS_FOR_DOWN_SERVER=1", waiterLeft},
		{"CALLERS=2 LEAVERS=2 ENDLESS=1 BREAK_LEAVE_NOT_SENT=1", functionLeft},
		{"CALLERS=2 LEAVERS=2 ENDLESS=1 BREAK_LEADER_ASKS_ONCE=1", functionLeft},
		{"REPLICAS=3 APART=1 STOPS=1 BREAK_TAKES_ANY_MESSAGE=1", "P3_joined_that_flight"},
		{"CALLERS=2 BREAK_MESSAGE_IGNORES_AGE=1", "P3_not_stale"},
		{"CALLERS=2 LARGE=1 BREAK_FETCH_IGNORES_AGE=1", "P3_not_stale"},
		{"HOT=1 BREAK_LOCAL_TIER_IGNORES_AGE=1", "P3_not_stale"},
		{"CALLERS=2 FORGETS=1 BREAK_FORGET_KEEPS_LEASE=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 BREAK_RENEW_TAKES_WITHOUT_STRIKE=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 BREAK_FORGET_TELLS_NO_LEADER=1", "P4_forgotten_flight_not_joined"},
		{"FACING=1 HOT=1 FORGETS=1 BREAK_FORGET_TELLS_NO_FOLLOWER=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 STOPS=1 BREAK_FORGET_SKIPS_DUE=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 FAILURES=1 BREAK_FORGET_SILENT_WITHOUT_LEADER=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 RECONNECTS=1 BREAK_RECONNECT_ASKS_NOTHING=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 RECONNECTS=1 BREAK_RECONNECT_SKIPS_JOINS=1", "P4_forgotten_flight_not_joined"},
		{"FACING=1 FORGETS=1 BREAK_PEEK_TELLS_NO_FORGET=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 FLUSHES=1 BREAK_LOST_KEEPS_LOCAL_FLIGHT=1", "P4_forgotten_flight_not_joined"},
		{"FACING=1 HOT=1 FORGETS=1 ALIVE=1 LOST_NOTICES=1 BREAK_ALIVE_TELLS_NO_FORGET=1", "P4_forgotten_flight_not_joined"},
		{"CALLERS=2 FORGETS=1 RECONNECTS=1 BREAK_RECONNECT_FORGETS_ALL=1", "P4_nothing_forgotten_unless_missed"},
		{"CALLERS=2 ATTEMPTS=1 CRASHES=2 BREAK_DEATHS_NOT_COUNTED=1", "P6_attempts_bounded"},
		{"REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 CRASHES=2 FAILURES=1 BREAK_FINISH_CLEARS_FOREIGN_STRIKES=1", "P6_attempts_bounded"},
		{"REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 CRASHES=2 LATE_FINISHES=1 BREAK_FINISH_CLEARS_FOREIGN_STRIKES=1", "P6_attempts_bounded"},
		{"CALLERS=2 ATTEMPTS=1 VANISHES=1 BREAK_VANISHED_LEASE_COUNTS=1", "P6_only_deaths_count"},
		{"ATTEMPTS=1 VANISHES=1 BREAK_LOST_FINISH_LEAVES_STRIKE=1", "P6_only_deaths_count"},
		{"CALLERS=2 ATTEMPTS=1 SHUTDOWNS=1 BREAK_ABANDON_LEAVES_STRIKE=1", "P6_only_deaths_count"},
		{"REPLICAS=3 APART=1 HOT=1 ATTEMPTS=1 VANISHES=1 BREAK_RENEW_MOVES_NO_STRIKE=1", "P6_only_deaths_count"},
		{"CALLERS=2 ATTEMPTS=1 LATE_RENEWALS=1 BREAK_RENEW_TAKES_WITHOUT_STRIKE=1", "P6_only_deaths_count"},
		{"CALLERS=2 ATTEMPTS=1 HANGS=1 LATE_JOINS=1 BREAK_ABANDON_GIVEN_UP_WHILE_DOWN=1", "P6_only_deaths_count"},
		{"HOT=1 ATTEMPTS=1 LATE_JOINS=1 BREAK_UNSURE_FINISHES=1", "P6_only_deaths_count"},
	},
	possible: []possible{
		{"CALLERS=2 CRASHES=1", "WITNESS_TAKEOVER"},
		{"CALLERS=2 CRASHES=1 ATTEMPTS=1", "WITNESS_POISONED"},
		{"CALLERS=2 LOSSES=1", "WITNESS_FETCHED"},
		{"CALLERS=2 SHUTDOWNS=1", "WITNESS_ABANDONED"},
		{"CALLERS=2 LATE_JOINS=1", "WITNESS_JOIN_TOO_LATE"},
		{"REPLICAS=3 APART=1 HOT=1 STOPS=1", "WITNESS_LATE_OUTCOME"},
		{"CALLERS=2 VANISHES=1", "WITNESS_RETAKEN"},
		{"REPLICAS=3 APART=1 HOT=1 VANISHES=1", "WITNESS_LOST_TO_ANOTHER"},
		{"CALLERS=2 LEAVERS=2", "WITNESS_ASKED_AGAIN"},
		{"CALLERS=2", "WITNESS_TOO_OLD"},
		{"CALLERS=2 HANGS=1", "WITNESS_FALLBACK"},
		{"CALLERS=2 FORGETS=1 RECONNECTS=1", "WITNESS_MISSED_FORGET"},
		{"CALLERS=2 ALIVE=1", "WITNESS_ALIVE"},
		{"CALLERS=2 LARGE=1", "WITNESS_RELEASED_UNSTORED"},
		{"CALLERS=2 LARGE=1 EXPIRIES=1", "WITNESS_PIECES_GONE"},
	},
}

// How spin reports that a caller waits for ever, or that a function runs for ever for
// which nobody waits.
const (
	waiterLeft   = "invalid end state"
	functionLeft = waiterLeft
)

var (
	violation = regexp.MustCompile(`(?m)^pan:1: (?:assertion violated +)?(.*) \(at depth \d+\)$`)
	states    = regexp.MustCompile(`\d+ states, stored`)
)

// batches are the same of the model of calls for many keys.
var batches = searches{
	kept: []kept{
		{"replicas ask for keys in any order", "BATCHES=3 CLUSTER=1"},
		{"two replicas die", "BATCHES=3 CRASHES=2 ENDLESS=1"},
		{"a replica dies, and functions return", "BATCHES=3 CRASHES=1"},
		{"a replica dies, and the keys are on two servers", "BATCHES=3 CRASHES=1 CLUSTER=1 ENDLESS=1"},
		{"two replicas die, and the keys are on two servers", "CRASHES=2 CLUSTER=1"},
		{"a lease is lost", "BATCHES=3 LOST_LEASES=1"},
		{"a lease is lost, and a replica dies", "CRASHES=1 LOST_LEASES=1 CLUSTER=1"},
		{"a flight has ended of which Redis does not know yet", "ENDED=1 CRASHES=1"},
		{"a flight has ended of which Redis never learns", "ENDED=1 ENDLESS=1 CLUSTER=1"},
	},
	broken: []broken{
		{"CLUSTER=1 BREAK_FUNCTION_WAITS_FOR_FOLLOWED=1", waiterLeft},
		{"BATCHES=3 CRASHES=2 CLUSTER=1 ENDLESS=1 BREAK_TAKEOVER_WAITS_FOR_FUNCTION=1", waiterLeft},
		{"ENDED=1 ENDLESS=1 BREAK_ENDED_FLIGHT_IS_WAITED_FOR=1", waiterLeft},
		{"LOST_LEASES=1 ENDLESS=1 BREAK_TAKEOVER_WAITS_FOR_WHO_LIVES=1", waiterLeft},
		{"BATCHES=3 CRASHES=1 BREAK_TAKEOVER_OF_EACH_KEY=1", "P6_taken_over_together"},
		{"BATCHES=3 CRASHES=1 BREAK_TAKEOVER_OF_THOSE_GONE_YET=1", "P6_taken_over_together"},
		{"BREAK_KEY_LED_TWICE=1", "P1_one_flight"},
	},
	possible: []possible{
		{"CLUSTER=1", "WITNESS_CROSSED"},
		{"CRASHES=1", "WITNESS_TAKEOVER"},
		{"BATCHES=3 CLUSTER=1 CRASHES=1", "WITNESS_SHARED_TAKEOVER"},
		{"ENDED=1", "WITNESS_AWAITED"},
	},
}

// adaptive are the same of the model of keys that Redis is not asked for.
var adaptive = searches{
	kept: []kept{
		{"a key turns hot, cold and hot", "CALLERS=3 COOLS=1"},
		{"a key is forgotten, and a subscription is lost", "FORGETS=1 CUTS=1"},
		{"three replicas are called for a key at once, and it is forgotten", "REPLICAS=3 CALLERS=1 FORGETS=1"},
	},
	broken: []broken{
		{"BREAK_NO_LOCAL_TIER=1", "P1_once_a_replica"},
		{"BREAK_JOIN_IGNORES_LEASE=1", "P1_one_asks"},
		{"BREAK_HOT_KEY_NOT_ASKED=1", "P1_then_one"},
		{"FORGETS=1 BREAK_FORGET_TELLS_NOBODY=1", "P4_forgotten_flight_not_joined"},
		{"FORGETS=1 CUTS=1 BREAK_RECONNECT_FORGETS_NOTHING=1", "P4_forgotten_flight_not_joined"},
	},
	possible: []possible{
		{"REPLICAS=3 CALLERS=1", "WITNESS_ALL_RUN"},
		{"", "WITNESS_SHARED"},
		{"", "WITNESS_SETTLED"},
		{"FORGETS=1", "WITNESS_FORGOTTEN"},
	},
}

func TestTheProtocolsModel(t *testing.T) { protocol.test(t, "protocol.pml") }

func TestTheModelOfBatches(t *testing.T) { batches.test(t, "batches.pml") }

func TestTheModelOfAdaptiveGroups(t *testing.T) { adaptive.test(t, "adaptive.pml") }

func (s searches) test(t *testing.T, model string) {
	v := newVerifier(t, model)
	for _, c := range s.kept {
		t.Run("keeps its promises when "+c.when, func(t *testing.T) {
			t.Parallel()
			report := v.search(t, c.settings)
			if !complete(report) {
				t.Errorf("%s: spin found an order of events that breaks a promise, or did not try all:\n%s", c.settings, report)
			}
			t.Logf("%s: %s", c.settings, states.FindString(report))
		})
	}
	for _, c := range s.broken {
		t.Run("breaks with "+c.settings, func(t *testing.T) {
			t.Parallel()
			report := v.search(t, c.settings)
			if found := violated(report); found != c.promise {
				t.Errorf("spin found %q, want %q:\n%s", found, c.promise, report)
			}
		})
	}
	for _, c := range s.possible {
		t.Run("can come to "+c.event, func(t *testing.T) {
			t.Parallel()
			report := v.search(t, c.settings+" "+c.event+"=1")
			if found := violated(report); !strings.HasPrefix(found, "!(("+c.event+"&&") {
				t.Errorf("spin found %q, want %s:\n%s", found, c.event, report)
			}
		})
	}
}

// complete reports whether a search tried every order of events, and none of them broke
// a promise.
func complete(report string) bool {
	return strings.Contains(report, "Full statespace search for:") &&
		strings.Contains(report, "errors: 0\n") &&
		!strings.Contains(report, "Warning: Search not completed") &&
		!strings.Contains(report, "error: max search depth too small")
}

// violated returns the promise that a search found broken, or an empty string.
func violated(report string) string {
	if m := violation.FindStringSubmatch(report); m != nil {
		return m[1]
	}
	return ""
}

// verifier is the program that searches the model.
type verifier struct {
	program   string
	model     string        // the source
	semaphore chan struct{} // bounds the searches at one time, because each may need several hundred MB
}

// newVerifier builds the verifier, which serves all settings.
func newVerifier(t *testing.T, name string) *verifier {
	t.Helper()
	for _, tool := range []string{"spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed; install it with: make setup (on Debian or Ubuntu: sudo apt-get install -y spin gcc libc6-dev)", tool)
		}
	}
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	model, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run(t, dir, os.Environ(), "spin", "-a", path)
	run(t, dir, os.Environ(), "gcc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=1000", "-o", "pan", "pan.c")
	return &verifier{filepath.Join(dir, "pan"), string(model), make(chan struct{}, 2)}
}

// search tries every order of the events that the settings allow, until one of them
// breaks a promise. It returns the verifier's report.
func (v *verifier) search(t *testing.T, settings string) string {
	t.Helper()
	env := strings.Fields(settings)
	for _, setting := range env {
		if name, _, _ := strings.Cut(setting, "="); !strings.Contains(v.model, "setting("+name+")") {
			t.Fatalf("the model has no setting %s", name)
		}
	}
	v.semaphore <- struct{}{}
	defer func() { <-v.semaphore }()
	return run(t, t.TempDir(), env, v.program, "-m20000", "-w22")
}

func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, env
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, output.String())
	}
	return output.String()
}
