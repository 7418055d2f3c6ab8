package protocol

import (
	"context"
	"fmt"
	"time"
)

// Settings are the arguments that all steps of a group share. They are made once for a
// group, as the interfaces that the client takes: otherwise each join would allocate
// those anew.
type Settings struct{ replicaID, leaseTTL, attemptsTTL, maxAttempts, handoffTTL, maxAge any }

// SettingsOf returns the settings of a group. handoffTTL is how long an outcome waits in
// Redis for a follower that missed its message. Redis counts lifetimes in milliseconds:
// a fraction is cut off. maxAge is exact to the microsecond.
// A leader that has died is counted for a flight timeout and two lease TTLs, so that the
// next one, which sees its lease run out, still finds the count.
func SettingsOf(replicaID string, leaseTTL, flightTimeout time.Duration, maxTakeovers int, handoffTTL, maxAge time.Duration) Settings {
	return Settings{
		replicaID:   replicaID,
		leaseTTL:    leaseTTL.Milliseconds(),
		attemptsTTL: (flightTimeout + 2*leaseTTL).Milliseconds(),
		maxAttempts: maxTakeovers + 1,
		handoffTTL:  handoffTTL.Milliseconds(),
		maxAge:      maxAge.Microseconds(),
	}
}

var noMaxAge any = int64(0)

// JoinRequest asks for the key's lease.
type JoinRequest struct {
	Names    Names
	Settings *Settings
	Fresh    bool   // an outcome that MaxAge has kept is of no use
	Trace    string // "" when no hook observes the flight; otherwise "+" and its trace
}

// Answer says what a join came to.
type Answer uint8

// The answers to a join. Each has a field of JoinReply that says more.
const (
	Leads      Answer = 1 + iota // this flight has taken the lease: Lead
	Follows                      // another flight has it: Follow
	TakesKept                    // no flight is needed: Kept
	IsPoisoned                   // too many leaders of the key have died: Poisoned
)

// JoinReply is the answer to a join, with the one field that the answer is about.
type JoinReply struct {
	Answer   Answer
	Lead     Lead
	Follow   Follow
	Kept     Kept
	Poisoned int64 // how many attempts had no outcome
}

// Lead is a lease that this flight has taken.
type Lead struct {
	Attempt int64 // 1 for the first
	Start   int64 // when it was taken, in µs of Redis' clock
}

// Follow is a flight of which another has the lease.
type Follow struct {
	Flight string
	TTL    time.Duration // of its lease
	Now    int64         // when Redis replied, in µs of its clock; 0 when no hook observes the flight
	Trace  string        // the trace that stands in its lease, or ""
}

// Kept is an outcome that finished within MaxAge.
type Kept struct {
	Outcome string
	Age     time.Duration // how long ago it finished, at most
	Trace   string        // of its flight, or ""
}

// Command returns the join as a command. ParseJoin reads its reply.
func (r *JoinRequest) Command() Command {
	n, s := &r.Names, r.Settings
	maxAge := s.maxAge
	if r.Fresh {
		maxAge = noMaxAge
	}
	return Command{script: joinScript, args: []any{"evalsha", joinScript.hash, 4,
		n.args.lease, n.args.attempts, n.args.latest, n.args.detached,
		n.args.flight, s.replicaID, s.leaseTTL, s.attemptsTTL, s.maxAttempts, maxAge, n.results(), r.Trace}}
}

// ParseJoin reads the reply to a join. It returns err when that is not nil, and an error
// that wraps ErrReply for a reply that it does not know.
func ParseJoin(reply any, err error) (JoinReply, error) {
	word, rest, err := words(reply, err)
	if err != nil {
		return JoinReply{}, err
	}
	switch word {
	case "lead":
		return JoinReply{Answer: Leads, Lead: Lead{number(rest, 0), number(rest, 1)}}, nil
	case "follow":
		return JoinReply{Answer: Follows, Follow: Follow{text(rest, 0), milliseconds(rest, 1), number(rest, 2), text(rest, 3)}}, nil
	case "done":
		return JoinReply{Answer: TakesKept, Kept: Kept{text(rest, 0), microseconds(rest, 1), text(rest, 2)}}, nil
	case "poisoned":
		return JoinReply{Answer: IsPoisoned, Poisoned: number(rest, 0)}, nil
	}
	return JoinReply{}, fmt.Errorf("%w: %q", ErrReply, word)
}

func milliseconds(list []any, i int) time.Duration {
	return time.Duration(number(list, i)) * time.Millisecond
}

func microseconds(list []any, i int) time.Duration {
	return time.Duration(number(list, i)) * time.Microsecond
}

// PeekRequest asks what became of a flight that this replica follows.
type PeekRequest struct {
	Names  Names
	Flight string
	Bytes  int // of its outcome, if that is known to be large
}

// PeekReply is what became of a flight. The zero value says that it is gone without an
// outcome.
type PeekReply struct {
	Done    bool          // it has an outcome: the next two fields
	Outcome string        // as it was finished
	Age     time.Duration // how long ago it finished, about
	Running time.Duration // until its lease runs out; 0: it does not run
}

// Peek sends the request. Its error is d's, or wraps ErrReply.
func Peek(ctx context.Context, d Doer, r PeekRequest) (PeekReply, error) {
	n := r.Names
	word, rest, err := words(d.Do(ctx, peekScript.command(r.Bytes,
		[]string{n.lease(), n.resultOf(r.Flight), n.detachedOf(r.Flight)}, r.Flight)))
	if err != nil {
		return PeekReply{}, err
	}
	switch word {
	case "done":
		return PeekReply{Done: true, Outcome: text(rest, 0), Age: microseconds(rest, 1)}, nil
	case "running":
		return PeekReply{Running: max(milliseconds(rest, 0), time.Millisecond)}, nil
	case "gone":
		return PeekReply{}, nil
	}
	return PeekReply{}, fmt.Errorf("%w: %q", ErrReply, word)
}

// Renew extends the lease of the flight that n was made for by the lease TTL, from now. It
// returns false when the flight had lost the lease. The error is d's.
func Renew(ctx context.Context, d Doer, n Names, s *Settings) (held bool, err error) {
	reply, err := d.Do(ctx, renewScript.command(0, []string{n.lease(), n.detached()}, n.Flight(), s.leaseTTL))
	return reply == int64(1), err
}

// AbandonRequest asks to give up the flight that Names was made for.
type AbandonRequest struct {
	Names    Names
	Settings *Settings
	Message  []byte // for those who wait for the flight
	Publish  string // PUBLISH or SPUBLISH
	Forced   bool   // the flight is given up even when somebody waits for it
}

// Abandon sends the request. It returns false when somebody waits for the flight, which
// then goes on. The error is d's.
func Abandon(ctx context.Context, d Doer, r AbandonRequest) (abandoned bool, err error) {
	n, forced := r.Names, 0
	if r.Forced {
		forced = 1
	}
	reply, err := d.Do(ctx, abandonScript.command(0, []string{n.lease(), n.attempts(), n.detached()},
		n.Flight(), r.Message, n.Channel(), forced, r.Publish, r.Settings.handoffTTL))
	return reply == int64(1), err
}

// ForgetRequest asks to make all replicas forget a key.
type ForgetRequest struct {
	Names   Names
	Channel string // the control channel
	Notice  []byte // names the key, for the other replicas
}

// Command returns the forget as a command. Only its error matters, not its reply.
func (r ForgetRequest) Command() Command {
	n := r.Names
	return forgetScript.command(0, []string{n.lease(), n.latest(), n.attempts()}, n.detachments(), r.Channel, r.Notice)
}

// Probe returns a command that fails unless Redis runs scripts and takes writes. The key
// that it writes lives for ttl.
func Probe(namespace string, ttl time.Duration) Command {
	return probeScript.command(0, []string{probeKey(namespace)}, ttl.Milliseconds())
}
