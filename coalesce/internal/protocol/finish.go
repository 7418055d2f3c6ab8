package protocol

import (
	"fmt"
	"time"
)

// FinishRequest asks to release the lease of the flight that Names was made for, and to
// hand its outcome to those who joined it.
type FinishRequest struct {
	Names    Names
	Settings *Settings
	Outcome  []byte        // as it is published and stored: whole, or a notice that its payload is stored
	Ask      bool          // only release the lease, and only if nobody wants the outcome
	Publish  string        // PUBLISH or SPUBLISH
	MaxAge   time.Duration // how long the outcome is kept for callers to come; 0: it is not
	Finished uint64        // the earliest that the function ended, in µs of Redis' clock
	Since    time.Duration // since the function ended, when the finish is sent
	Trace    string        // of the flight, or ""
	Unshared string        // why the outcome cannot be shared, which the key's next callers are told; "": it can be
}

// FinishReply is what a finish found.
type FinishReply int64

// The replies to a finish.
const (
	FinishLost    FinishReply = -1 // the flight had lost its lease
	FinishNothing FinishReply = 0  // Redis had nothing of it: it released its lease before, or Redis lost that
	FinishHeld    FinishReply = 1  // it had its lease, or its key was forgotten
	FinishWanted  FinishReply = 2  // to one that asked: the outcome is wanted, and nothing was changed
	FinishShared  FinishReply = 3  // FinishHeld, and somebody had joined it
)

// Command returns the finish as a command. ParseFinish reads its reply.
func (r *FinishRequest) Command() Command {
	n, s := &r.Names, r.Settings
	ask, outcome := "", r.Outcome
	if r.Ask {
		ask, outcome = "ask", nil
	}
	kept := r.MaxAge.Milliseconds()
	args := append(make([]any, 0, firstKey+4+8), "evalsha", finishScript.hash, 3, n.args.lease, n.args.attempts, n.result())
	if kept > 0 {
		args[firstKey-1] = 4
		args = append(args, n.args.latest)
	}
	args = append(args, outcome, r.Finished, r.Since.Microseconds()+1, s.handoff(r.Publish, n.database()))
	if ask != "" || r.Unshared != "" || kept > 0 {
		args = append(args, ask, r.Unshared, kept, r.Trace)
	}
	return Command{script: finishScript, bytes: len(outcome), args: args}
}

// handoff returns what a finish needs to hand its outcome over.
func (s *Settings) handoff(publish, database string) string {
	return fmt.Sprintf("%d %s %s %d", s.handoffTTL, publish, database, unshareableFor.Milliseconds())
}

// ParseFinish reads the reply to a finish. A reply that no finish gives is taken for
// FinishNothing.
func ParseFinish(reply any) FinishReply {
	switch reply {
	case int64(FinishHeld):
		return FinishHeld
	case int64(FinishShared):
		return FinishShared
	case int64(FinishLost):
		return FinishLost
	case int64(FinishWanted):
		return FinishWanted
	}
	return FinishNothing
}
