package protocol

import (
	"slices"
	"time"
)

// FinishRequest asks to release the lease of the flight that Names was made for, and to
// hand its outcome to those who joined it.
type FinishRequest struct {
	Names    Names
	Settings *Settings
	Outcome  []byte
	Notice   []byte        // says that the outcome is stored
	Publish  string        // PUBLISH or SPUBLISH
	Message  Message       // what is published
	MaxAge   time.Duration // how long the outcome is kept for callers to come; 0: it is not
	Trace    string        // of the flight, or ""

	// From these Redis learns how old the outcome is, and whether the lease was lost.
	Earliest int64         // the earliest that the function ended, in µs of Redis' clock
	Age      time.Duration // how long before it is sent the function ended
	Allowed  time.Duration // how long the command may be on its way
	Outlived bool          // the function ran for longer than its lease
}

// FinishReply is what a finish found.
type FinishReply int64

// The replies to a finish.
const (
	FinishLost     FinishReply = -1 // the flight had lost its lease
	FinishReleased FinishReply = 0  // it had released it before, or the key was forgotten
	FinishHeld     FinishReply = 1  // it had its lease
)

// Command returns the finish as a command. ParseFinish reads its reply.
func (r *FinishRequest) Command() Command {
	n, s, outlived := &r.Names, r.Settings, 0
	if r.Outlived {
		outlived = 1
	}
	return Command{script: finishScript, bytes: len(r.Outcome), args: []any{"evalsha", finishScript.hash, 5,
		n.args.lease, n.args.attempts, n.result(), n.args.latest, n.args.detached,
		n.args.flight, r.Outcome, r.Notice, n.Channel(), r.Publish, string(r.Message),
		s.handoffTTL, r.MaxAge.Milliseconds(),
		r.Earliest, r.Age.Microseconds(), r.Allowed.Microseconds(), outlived, r.Trace}}
}

// Places among the arguments of a finish.
const (
	finishMessage = 13
	finishAge     = 17
)

// Again returns the finish for another try, by when the function ended so long ago: it
// publishes a notice.
func (c Command) Again(age time.Duration) Command {
	args := slices.Clone(c.args)
	args[finishMessage], args[finishAge] = string(Again), age.Microseconds()
	return Command{script: c.script, args: args, bytes: c.bytes}
}

// ParseFinish reads the reply to a finish. A reply that no finish gives is taken for
// FinishReleased.
func ParseFinish(reply any) FinishReply {
	switch reply {
	case int64(FinishHeld):
		return FinishHeld
	case int64(FinishLost):
		return FinishLost
	}
	return FinishReleased
}
