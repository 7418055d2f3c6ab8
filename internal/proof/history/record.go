// Package history writes down what the replicas of a fleet did and decides,
// from that alone, whether the protocol kept its promises.
//
// Every process appends its records to a file of its own, one JSON object a
// line, each with one write, so that a process that is killed loses none that
// it made. A call is written down before it begins and after it ended, an
// execution likewise; what a killed process had begun has no end.
package history

import "time"

// Record is one event of one process.
type Record struct {
	// At is CLOCK_MONOTONIC of the machine in nanoseconds: all processes of one
	// machine agree on it.
	At      int64  `json:"at"`
	Process string `json:"process"` // replica and incarnation, "r2.3"; the driver's is "driver"
	Kind    Kind   `json:"kind"`

	Key    string `json:"key,omitempty"`
	Flight string `json:"flight,omitempty"`
	// Call is the caller's call in its process. In a Start it is empty.
	Call string `json:"call,omitempty"`
	// Execution names one run of a function, unique in the history. The function
	// returns it as its value, and names it in its error or panic: so a
	// Return says whose result its caller got.
	Execution string `json:"execution,omitempty"`

	Role     string        `json:"role,omitempty"`     // Return, Start: as in X-Coalesce-Role
	Outcome  Outcome       `json:"outcome,omitempty"`  // Return, End
	Error    string        `json:"error,omitempty"`    // Return, End, Forgotten: for the reader
	Deadline int64         `json:"deadline,omitempty"` // Call: of its context, as At; 0: none
	Cause    string        `json:"cause,omitempty"`    // Start: of a fallback
	Takeover bool          `json:"takeover,omitempty"` // Start
	State    string        `json:"state,omitempty"`    // Lease: taken, renewed, lost, released
	Asked    int64         `json:"asked,omitempty"`    // Lease: when Redis was asked, as At
	Fault    string        `json:"fault,omitempty"`    // FaultBegin, FaultEnd: its name in the table
	Target   string        `json:"target,omitempty"`   // FaultBegin, FaultEnd: the process it hits; empty: all
	Settings *Settings     `json:"settings,omitempty"` // Begin
	Effects  *Effects      `json:"effects,omitempty"`  // FaultBegin
	Took     time.Duration `json:"took,omitempty"`     // FaultEnd: what the table shows as worst seen
}

// Kind says what happened.
type Kind string

// The kinds of records.
const (
	Begin      Kind = "begin"      // a process starts, its first record; Settings
	Called     Kind = "call"       // Key, Call, Deadline
	Returned   Kind = "return"     // Key, Call, Role, Flight, Outcome, Execution
	Started    Kind = "start"      // Key, Flight, Execution, Role, Cause, Takeover
	Ended      Kind = "end"        // Key, Flight, Execution, Outcome
	LeaseIs    Kind = "lease"      // Key, Flight, State, Asked
	Forget     Kind = "forget"     // Key, Call: Forget begins; Call pairs it with its end
	Forgotten  Kind = "forgotten"  // Key, Call, Error: Forget returned
	FaultBegin Kind = "faultbegin" // Fault, Target, Effects
	FaultEnd   Kind = "faultend"   // Fault, Target: what it did is undone
	Closing    Kind = "closing"    // Close begins: from now on, calls may be refused
	Exit       Kind = "exit"       // a process ends in good order: Close has returned, and every call
)

// Outcome is how a call or an execution ended.
type Outcome string

// The outcomes. The last four are of calls only. An outcome of a call that was
// not the function's names no execution.
const (
	Value         Outcome = "value"
	KnownError    Outcome = "error"          // one that was registered; a call's: errors.Is says so
	OtherError    Outcome = "other error"    // of the function, not registered
	Panic         Outcome = "panic"          // a call's: PanicError or ErrRemotePanic
	Cancelled     Outcome = "cancelled"      // a call's: its own context has ended; an execution's: it obeyed its context's cancellation
	FlightTimeout Outcome = "flight timeout" // an execution's: it obeyed its context's deadline
	Poisoned      Outcome = "poisoned"
	Closed        Outcome = "closed"
	Unavailable   Outcome = "unavailable"
	Strange       Outcome = "strange" // nothing of the above: never right
)

// Settings are what the promises are measured by.
type Settings struct {
	LeaseTTL      time.Duration `json:"lease_ttl"`
	FlightTimeout time.Duration `json:"flight_timeout"`
	RedisTimeout  time.Duration `json:"redis_timeout"`
	MaxAge        time.Duration `json:"max_age"`
	MaxTakeovers  int           `json:"max_takeovers"`
	FailClosed    bool          `json:"fail_closed,omitempty"`
}

// Effects are what a fault may do, and so what the checker excuses while it
// lasts and, where a promise says so, for a time after.
type Effects struct {
	// LosesKeys: Redis may forget leases, results and attempts (killed,
	// emptied, a failover that lost the last writes).
	LosesKeys bool `json:"loses_keys,omitempty"`
	// Unusable: every command of the target fails or takes longer than the
	// Redis timeout.
	Unusable bool `json:"unusable,omitempty"`
	// Unreliable: any command of the target may fail or take longer, or not.
	Unreliable bool `json:"unreliable,omitempty"`
	// LosesMessages: published messages may not arrive at the target.
	LosesMessages bool `json:"loses_messages,omitempty"`
	// Garbage: keys may be overwritten, and messages forged.
	Garbage bool `json:"garbage,omitempty"`
	// Stops: the target does not run.
	Stops bool `json:"stops,omitempty"`
	// Kills: the target does not end its calls.
	Kills bool `json:"kills,omitempty"`
	// Delay: commands and messages of the target are late by up to this.
	Delay time.Duration `json:"delay,omitempty"`
}
