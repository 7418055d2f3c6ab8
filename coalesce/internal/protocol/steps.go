package protocol

import (
	"context"
	"fmt"
	"time"
)

// Settings are the arguments that all steps of a group share. They are made once for a
// group, as the interfaces that the client takes: otherwise each join would allocate
// those anew.
type Settings struct {
	leaseTTL, attemptsTTL, handoffTTL any
	keeps                             bool // MaxAge is not 0
	replicaID                         string
	ofLease                           any // what stands in the lease from its TTL on, but the trace
	limits                            any // what few joins need
}

// SettingsOf returns the settings of a group. handoffTTL is how long an outcome waits in
// Redis for a follower that missed its message. Redis counts lifetimes in milliseconds:
// a fraction is cut off. maxAge is exact to the microsecond.
// A leader that has died is counted for a flight timeout and two lease TTLs, so that the
// next one, which sees its lease run out, still finds the count.
func SettingsOf(replicaID string, leaseTTL, flightTimeout time.Duration, maxTakeovers int, handoffTTL, maxAge time.Duration) Settings {
	s := Settings{
		leaseTTL:    leaseTTL.Milliseconds(),
		attemptsTTL: (flightTimeout + 2*leaseTTL).Milliseconds(),
		handoffTTL:  handoffTTL.Milliseconds(),
		keeps:       maxAge.Microseconds() > 0,
		replicaID:   replicaID,
		limits:      fmt.Sprintf("%d %d %d", maxTakeovers+1, unshareableFor.Milliseconds(), maxAge.Microseconds()),
	}
	return s.Tagged("-")
}

// milliseconds returns a lifetime as a number.
func (*Settings) milliseconds(ttl any) int64 { ms, _ := ttl.(int64); return ms }

// Tagged returns the settings for outcomes that only replicas with this tag can read: a
// word of visible ASCII characters. A replica with another one does not follow.
func (s Settings) Tagged(tag string) Settings {
	s.ofLease = fmt.Sprintf("%d %s %s\n", s.leaseTTL, tag, s.replicaID)
	return s
}

// unshareableFor is how long a key is remembered as one whose outcome could not be shared.
const unshareableFor = 10 * time.Second

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
	RunsAlone                    // the outcome of a flight would be of no use here: Why
	IsOver                       // this flight was given up, or was forgotten before this reply to its join
)

// JoinReply is the answer to a join, with the one field that the answer is about.
type JoinReply struct {
	Answer   Answer
	Lead     Lead
	Follow   Follow
	Kept     Kept
	Poisoned int64  // how many leaders have died
	Why      string // TooLarge or Incompatible, or what anybody wrote there
}

// Lead is a lease that this flight has taken.
type Lead struct {
	Attempt int64 // 1 for the first
	Now     int64 // when Redis replied, in µs of its clock
}

// Follow is a flight of which another has the lease.
type Follow struct {
	Flight string
	TTL    time.Duration // of its lease
	Now    int64         // when Redis replied, in µs of its clock
	Trace  string        // the trace that stands in its lease; "" when there is none, or no hook observes this flight
}

// Kept is an outcome that finished within MaxAge.
type Kept struct {
	Outcome string        // whole, or a notice
	Age     time.Duration // how long ago it finished, at most
	Trace   string        // of its flight, or ""
}

// Command returns the join as a command. ParseJoin reads its reply.
func (r *JoinRequest) Command() Command {
	n, s := &r.Names, r.Settings
	args := append(make([]any, 0, firstKey+4+5), "evalsha", joinScript.hash, 3, n.args.lease, n.args.attempts, n.args.over)
	if s.keeps && !r.Fresh {
		args[firstKey-1] = 4
		args = append(args, n.args.latest)
	}
	args = append(args, s.leaseTTL, s.attemptsTTL, s.ofLease, s.limits)
	if r.Trace != "" {
		args = append(args, r.Trace)
	}
	return Command{script: joinScript, args: args}
}

// ParseJoin reads the reply to a join. It returns err when that is not nil, and an error
// that wraps ErrReply for a reply that it does not know.
func ParseJoin(reply any, err error) (JoinReply, error) {
	if now, first := reply.(int64); first && err == nil {
		return JoinReply{Answer: Leads, Lead: Lead{Attempt: 1, Now: now}}, nil
	}
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
	case "alone":
		return JoinReply{Answer: RunsAlone, Why: text(rest, 0)}, nil
	case "over":
		return JoinReply{Answer: IsOver}, nil
	}
	return JoinReply{}, fmt.Errorf("%w: %q", ErrReply, word)
}

// Why a flight runs alone.
const (
	TooLarge     = "too large"    // the last outcome of the key could not travel
	Incompatible = "incompatible" // the flight's leader has another tag
)

func milliseconds(list []any, i int) time.Duration {
	return time.Duration(number(list, i)) * time.Millisecond
}

func microseconds(list []any, i int) time.Duration {
	return time.Duration(number(list, i)) * time.Microsecond
}

// PeekRequest asks what became of a flight that this replica follows.
type PeekRequest struct {
	Names    Names
	Settings *Settings
	Flight   string
}

// PeekReply is what became of a flight. The zero value says that Redis has nothing of it:
// it ended long ago, or Redis lost its lease.
type PeekReply struct {
	Done    bool          // it has an outcome: the next field
	Outcome string        // as it was finished: whole, or a notice
	Running time.Duration // until its lease runs out; 0: it does not run
	// Forgotten: it runs, and its key was forgotten meanwhile.
	Forgotten bool
	Over      bool // it was given up
}

// Peek sends the request. Its error is d's, or wraps ErrReply.
func Peek(ctx context.Context, d Doer, r PeekRequest) (PeekReply, error) {
	n := r.Names
	word, rest, err := words(d.Do(ctx, peekScript.command(0,
		[]string{n.lease(), n.resultOf(r.Flight), n.overOf(r.Flight), n.attempts()}, r.Flight, r.Settings.leaseTTL)))
	if err != nil {
		return PeekReply{}, err
	}
	switch word {
	case "done":
		return PeekReply{Done: true, Outcome: text(rest, 0)}, nil
	case "running":
		return PeekReply{Running: max(milliseconds(rest, 0), time.Millisecond), Forgotten: number(rest, 1) == 1}, nil
	case "over":
		return PeekReply{Over: true}, nil
	case "gone":
		return PeekReply{}, nil
	}
	return PeekReply{}, fmt.Errorf("%w: %q", ErrReply, word)
}

// LeaveRequest asks not to count this replica's flight any more among those who wait for
// the flight that it followed.
type LeaveRequest struct {
	Names    Names // of the flight that leaves
	Settings *Settings
	Flight   string // that it followed
}

// Leave sends the request. The error is d's.
func Leave(ctx context.Context, d Doer, r LeaveRequest) error {
	n := r.Names
	_, err := d.Do(ctx, leaveScript.command(0, []string{n.lease(), n.attempts(), n.over()}, r.Flight, r.Settings.handoffTTL))
	return err
}

// RenewRequest asks to extend the lease of the flight that Names was made for by the lease
// TTL, from now, and to tell those who have joined the flight. Attempt, Start and Trace are for
// a lease that Redis has lost: it is taken again.
type RenewRequest struct {
	Names    Names
	Settings *Settings
	Message  []byte // that the flight lives
	Publish  string // PUBLISH or SPUBLISH
	Attempt  int64
	Start    int64  // when the lease was taken, in µs of Redis' clock
	Trace    string // "" when there is none
}

// RenewReply is what a renewal found.
type RenewReply struct {
	State RenewState
	Now   int64 // when Redis replied, in µs of its clock
	// Forgotten: the key was forgotten while the flight ran; or it may have been, because
	// Redis has lost all that it had of the flight.
	Forgotten bool
}

// RenewState says what the flight has.
type RenewState uint8

// What a flight may have after a renewal.
const (
	Over    RenewState = iota // nothing: it was given up
	Held                      // its lease, or none because its key was forgotten
	Retaken                   // its lease, which Redis had lost
	Lost                      // no lease; those who joined it see it run
)

// Renew sends the request. Its error is d's, or wraps ErrReply.
func Renew(ctx context.Context, d Doer, r RenewRequest) (RenewReply, error) {
	n, s := r.Names, r.Settings
	rest := fmt.Sprintf(" %d %d %s%s", r.Attempt, r.Start, s.ofLease, r.Trace)
	word, list, err := words(d.Do(ctx, renewScript.command(0, []string{n.lease(), n.attempts(), n.over()},
		n.Flight(), s.leaseTTL, s.attemptsTTL, rest, n.Channel(), r.Publish, r.Message)))
	if err != nil {
		return RenewReply{}, err
	}
	states := map[string]RenewState{"over": Over, "held": Held, "retaken": Retaken, "lost": Lost}
	state, known := states[word]
	if !known {
		return RenewReply{}, fmt.Errorf("%w: %q", ErrReply, word)
	}
	return RenewReply{state, number(list, 0), number(list, 1) == 1}, nil
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
	reply, err := d.Do(ctx, abandonScript.command(0, []string{n.lease(), n.attempts(), n.over()},
		n.Flight(), r.Message, n.Channel(), forced, r.Publish, r.Settings.handoffTTL))
	return reply == int64(1), err
}

// Probe returns a command that fails unless the server of the key near, which may be "",
// runs scripts and takes writes. The key that it writes lives for ttl.
func Probe(namespace, near string, ttl time.Duration) Command {
	return probeScript.command(0, []string{probeKey(namespace, near)}, ttl.Milliseconds())
}
