package protocol

import "time"

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
	Finished uint64        // the earliest that the function ended, in µs of Redis' clock
	Trace    string        // of the flight, or ""
	Unshared string        // why the outcome cannot be shared, which the key's next callers are told; "": it can be
}

// FinishReply is what a finish found.
type FinishReply int64

// The replies to a finish.
const (
	FinishLost    FinishReply = -1 // the flight had lost its lease
	FinishNothing FinishReply = 0  // Redis had nothing of it: it released its lease before, or Redis lost that
	FinishHeld    FinishReply = 1  // it had its lease, or a detached one since the key was forgotten
)

// Command returns the finish as a command. ParseFinish reads its reply.
func (r *FinishRequest) Command() Command {
	n, s := &r.Names, r.Settings
	return Command{script: finishScript, bytes: len(r.Outcome), args: []any{"evalsha", finishScript.hash, 5,
		n.args.lease, n.args.attempts, n.result(), n.args.latest, n.args.detached,
		n.args.flight, r.Outcome, r.Notice, n.Channel(), r.Publish, string(r.Message),
		s.handoffTTL, r.MaxAge.Milliseconds(), r.Finished, r.Trace, r.Unshared, unshareableFor}}
}

// ParseFinish reads the reply to a finish. A reply that no finish gives is taken for
// FinishNothing.
func ParseFinish(reply any) FinishReply {
	switch reply {
	case int64(FinishHeld):
		return FinishHeld
	case int64(FinishLost):
		return FinishLost
	}
	return FinishNothing
}
