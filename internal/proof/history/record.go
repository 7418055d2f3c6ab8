// Package history records what the replicas of a fleet do, and decides from the records
// alone whether the protocol kept its promises.
//
// Every process appends its records to a file of its own, as one JSON object on each
// line. Each record is one write, so a process that is killed loses no record that it
// has made. A call is recorded before it begins and after it has ended, and so is an
// execution. If a process is killed, its records have beginnings without an end.
package history

import "time"

// Record is one event of one process.
type Record struct {
	// At is the machine's CLOCK_MONOTONIC in nanoseconds. It is the same for all
	// processes of one machine.
	At      int64  `json:"at"`
	Process string `json:"process"` // replica and incarnation, such as "r2.3"; "driver" for the driver
	Kind    Kind   `json:"kind"`

	Key    string `json:"key,omitempty"`
	Flight string `json:"flight,omitempty"`
	// Call names a call within its process. It is empty in a Started record.
	Call string `json:"call,omitempty"`
	// Batch names, within its process, the call for many keys of which this is one key. A
	// call for many keys has a Called and a Returned record of each key, and its function
	// an execution of each key that it was run for.
	Batch string `json:"batch,omitempty"`
	// Execution names one run of a function and is unique in the history. The function
	// returns this name as its value, or within its error or panic. So a Returned
	// record says whose result the caller got.
	Execution string `json:"execution,omitempty"`

	Role     string   `json:"role,omitempty"`     // Returned, Started: as in X-Coalesce-Role
	Outcome  Outcome  `json:"outcome,omitempty"`  // Returned, Ended
	Error    string   `json:"error,omitempty"`    // Returned, Ended, Forgotten: for human readers
	Deadline int64    `json:"deadline,omitempty"` // Called: that of its context, as At; 0: none
	Cause    string   `json:"cause,omitempty"`    // Started: why it is a fallback
	Takeover bool     `json:"takeover,omitempty"` // Started
	State    string   `json:"state,omitempty"`    // LeaseIs: taken, renewed, lost or released
	Asked    int64    `json:"asked,omitempty"`    // LeaseIs: when Redis was asked, as At; Over: when the function ended
	Fault    string   `json:"fault,omitempty"`    // FaultBegin, FaultEnd: its name in the table
	Target   string   `json:"target,omitempty"`   // FaultBegin, FaultEnd: the process that it hits; empty: all
	Keys     []string `json:"keys,omitempty"`     // FaultBegin: those that it hits; empty: all
	// Injection is the same in the FaultBegin and the FaultEnd of one injection. Where
	// two of one fault hit one target at a time, it tells which of them has ended.
	Injection string        `json:"injection,omitempty"`
	Settings  *Settings     `json:"settings,omitempty"` // Begin
	Effects   *Effects      `json:"effects,omitempty"`  // FaultBegin
	Took      time.Duration `json:"took,omitempty"`     // FaultEnd: the worst time seen, for the table
}

// Kind is the kind of an event.
type Kind string

// The kinds of events, and the fields that their records have.
const (
	Begin      Kind = "begin"      // Settings; the first record of a process
	Called     Kind = "call"       // Key, Call, Batch, Deadline
	Returned   Kind = "return"     // Key, Call, Role, Flight, Outcome, Execution
	Started    Kind = "start"      // Key, Flight, Execution, Role, Cause, Takeover
	Ended      Kind = "end"        // Key, Flight, Execution, Outcome: it is about to end
	Over       Kind = "over"       // Key, Flight, Execution, Asked: it ended then; not known if the process was killed
	LeaseIs    Kind = "lease"      // Key, Flight, State, Asked
	Forget     Kind = "forget"     // Key, Call: Forget was called; Call connects it with its end
	Forgotten  Kind = "forgotten"  // Key, Call, Error: Forget has returned
	FaultBegin Kind = "faultbegin" // Fault, Target, Injection, Keys, Effects
	FaultEnd   Kind = "faultend"   // Fault, Target, Injection: the fault has been undone
	Closing    Kind = "closing"    // Close was called: from now on, calls may be refused
	Exit       Kind = "exit"       // the process exits cleanly: Close and all calls have returned
)

// Outcome is how a call or an execution ended.
type Outcome string

// The outcomes. The last five exist only for calls. If the outcome of a call is not the
// function's, its record names no execution; nor does that of NoResult, which is known by
// its flight.
const (
	Value         Outcome = "value"
	KnownError    Outcome = "error"          // a registered error; for a call, errors.Is recognises it
	OtherError    Outcome = "other error"    // an error of the function that is not registered
	NoResult      Outcome = "no result"      // a function for many keys returned none for this one
	Panic         Outcome = "panic"          // for a call, a PanicError or ErrRemotePanic
	Cancelled     Outcome = "cancelled"      // for a call, its own context ended; for an execution, it returned when its context was cancelled
	FlightTimeout Outcome = "flight timeout" // for an execution, it returned at its context's deadline
	Poisoned      Outcome = "poisoned"
	Closed        Outcome = "closed"
	Unavailable   Outcome = "unavailable"
	Unwound       Outcome = "unwound" // the call was for many keys and panicked, so that what came of this key is not known
	Strange       Outcome = "strange" // none of the others, which is always a violation
)

// Settings are the settings of a process that the promises depend on.
type Settings struct {
	LeaseTTL      time.Duration `json:"lease_ttl"`
	FlightTimeout time.Duration `json:"flight_timeout"`
	RedisTimeout  time.Duration `json:"redis_timeout"`
	MaxAge        time.Duration `json:"max_age"`
	MaxTakeovers  int           `json:"max_takeovers"`
	FailClosed    bool          `json:"fail_closed,omitempty"`
}

// Effects says what a fault may do. The checker excuses these effects while the fault
// lasts and, where a promise says so, for some time after.
type Effects struct {
	// LosesKeys: Redis may lose leases, results and attempts, because it is killed or
	// emptied, or because a failover lost the last writes.
	LosesKeys bool `json:"loses_keys,omitempty"`
	// SetsClock: Redis' clock is set.
	SetsClock bool `json:"sets_clock,omitempty"`
	// Unusable: every command of the target fails or takes longer than the Redis
	// timeout.
	Unusable bool `json:"unusable,omitempty"`
	// Unreliable: some commands of the target may fail or take longer.
	Unreliable bool `json:"unreliable,omitempty"`
	// Holds: single replies to the target are late. Only the commands that wait for them
	// may fail.
	Holds bool `json:"holds,omitempty"`
	// LosesMessages: published messages may not reach the target.
	LosesMessages bool `json:"loses_messages,omitempty"`
	// Garbage: keys may be overwritten and messages may be forged.
	Garbage bool `json:"garbage,omitempty"`
	// Stops: the target does not run.
	Stops bool `json:"stops,omitempty"`
	// Kills: the target ends without ending its calls.
	Kills bool `json:"kills,omitempty"`
	// Delay: commands and messages of the target are delayed by up to this.
	Delay time.Duration `json:"delay,omitempty"`
}
