package protocol_test

import (
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

func nothing(*stage) {}

// joins are what a join finds when nothing is kept.
var joins = []situation{
	{"join/free", "nobody has the lease. This flight takes it.", nothing, plainJoin},
	{"join/free-observed", "nobody has the lease, and a hook observes the flight. Its trace stands in the lease.", nothing,
		join(func(r *protocol.JoinRequest) { r.Trace = "+trace-of-this" })},
	{"join/held-by-this-flight", "this flight has the lease: the reply to its first join was lost. It leads, and the lease is extended.",
		func(s *stage) { s.leaseFor(this, 0, 5*time.Minute); s.counted(this, 0) }, plainJoin},
	{"join/held-by-another", "another flight has the lease, and nobody has joined it yet. The mark is set that tells its leader, and this follower counted.",
		func(s *stage) { s.lease(another, 0) }, plainJoin},
	{"join/held-by-another-and-joined", "another flight has the lease, and somebody has joined it. The mark is there, and this follower counted.",
		func(s *stage) { s.lease(another, 1) }, plainJoin},
	{"join/held-by-another-and-joined-by-very-many", "more followers wait than four digits count. From now on nobody knows how many.",
		func(s *stage) { s.lease(another, 9999) }, plainJoin},
	{"join/held-by-another-observed", "another flight has the lease, and a hook observes this one. It hears the trace of the other.",
		func(s *stage) {
			s.set("lease", "1"+another+"0001 1 <start> 60000 - replica\nb\ntrace-of-another", leaseTTL)
		},
		join(func(r *protocol.JoinRequest) { r.Trace = "+trace-of-this" })},
	{"join/held-by-another-without-trace", "another flight has the lease, whose replica wrote no trace. A hook observes this one, and hears none.",
		func(s *stage) { s.set("lease", "1"+another+"0001 1 <start> 60000 - replica-b", leaseTTL) },
		join(func(r *protocol.JoinRequest) { r.Trace = "+" })},
	{"join/held-by-another-for-ever", "another flight has the lease, which has no TTL. It gets one, or its leader's death would never end it.",
		func(s *stage) { s.leaseFor(another, 1, 0) }, plainJoin},
	{"join/held-by-another-for-too-long", "another flight has the lease, which lives for longer than its leader asked for: the server's clock was set back. It gets the TTL that it had.",
		func(s *stage) { s.leaseFor(another, 1, time.Hour) }, plainJoin},
	{"join/held-by-another-for-too-long-and-an-attempt", "another flight has the lease, which lives for longer than its leader asked for, and among the attempts it is due as late: the server's clock was set back. Both end with the TTL that it had.",
		func(s *stage) { s.leaseFor(another, 1, time.Hour); s.attempt(another, time.Hour, "") }, plainJoin},
	{"join/lease-is-garbage", "what stands as the lease is none. It is overwritten.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, plainJoin},
	{"join/lease-is-of-another-version", "the lease is one of an earlier version. It is overwritten.",
		func(s *stage) { s.set("lease", "1"+another+" 1 <start> replica-b\n", leaseTTL) }, plainJoin},
	{"join/lease-is-cut-off", "the lease is too short to have a flight. It is overwritten.",
		func(s *stage) { s.set("lease", "0another-flight0000 1 <start> 60000 - ", leaseTTL) }, plainJoin},
	{"join/lease-is-of-a-wrong-type", "a list stands as the lease. It is overwritten.",
		func(s *stage) { s.wrongType("lease") }, plainJoin},
	{"join/abandoned-before", "this flight was abandoned: its join came too late, and nobody would release the lease.",
		func(s *stage) { s.over(this) }, plainJoin},
}

// deaths are what a join finds when nobody has the lease, and flights had no outcome.
var deaths = []situation{
	{"join/free-after-a-death", "a leader has died. This flight is the second attempt.",
		func(s *stage) { s.died(another) }, plainJoin},
	{"join/free-last-attempt", "as many leaders have died as may. This flight is the last attempt.",
		func(s *stage) { s.died(another); s.died("a-third-flight") }, plainJoin},
	{"join/attempts-used-up", "more leaders have died than may. Nobody leads, and nobody is counted: the deaths must end by themselves.",
		usedUp, plainJoin},
	{"join/attempts-used-up-for-ever", "more leaders have died than may, and the attempts have no TTL. They get one.",
		func(s *stage) { usedUp(s); s.do("PERSIST", prefix+":attempts") }, plainJoin},
	{"join/attempts-used-up-for-too-long", "more leaders have died than may, and the attempts live for longer than deaths are counted: the server's clock was set back.",
		func(s *stage) { usedUp(s); s.do("PEXPIRE", prefix+":attempts", time.Hour.Milliseconds()) }, plainJoin},
	{"join/free-before-it-was-due", "Redis lost leases before they were due. That is no death, however often it happens.",
		func(s *stage) {
			s.counted(another, time.Minute)
			s.counted("a-third-flight", time.Minute)
			s.counted("a-fourth-flight", time.Minute)
		}, plainJoin},
	{"join/free-after-its-own", "this flight had the lease, which ran out; the reply to its first join was lost. That was no death.",
		func(s *stage) { s.died(this) }, plainJoin},
	{"join/free-after-one-was-forgotten", "the key was forgotten, and the leader of its flight has died. That kills nobody who comes after.",
		func(s *stage) { s.forgotten(another, "10001", -time.Minute) }, plainJoin},
	{"join/forgotten", "the client has sent the join twice, and the key was forgotten in between: the flight began before that.",
		func(s *stage) { s.forgotten(this, "00000", time.Minute) }, plainJoin},
	{"join/free-after-a-lost-lease", "the leader has lost its lease, and has died. It counts.",
		func(s *stage) { s.attempt(another, -time.Minute, " l") }, plainJoin},
	{"join/attempts-are-garbage", "one of the attempts has no time. It does not count.",
		func(s *stage) {
			s.died("a-third-flight")
			s.do("HSET", prefix+":attempts", another, "garbage")
		}, plainJoin},
	{"join/attempts-are-of-another-version", "the attempts are the number that an earlier version wrote. It is replaced.",
		func(s *stage) { s.set("attempts", "3", flightTimeout) }, plainJoin},
}

// usedUp are deaths of more leaders than may die.
func usedUp(s *stage) {
	s.died(another)
	s.died("a-third-flight")
	s.died("a-fourth-flight")
}

// keeps are what a join finds where MaxAge has kept an outcome.
var keeps = []situation{
	{"join/kept", "an outcome was kept that finished within MaxAge. No flight is needed.",
		func(s *stage) { s.kept(-time.Minute) }, plainJoin},
	{"join/kept-with-trace", "an outcome was kept, with the trace of its flight.",
		func(s *stage) {
			s.kept(-time.Minute)
			s.latest("trace", "trace-of-another")
		}, plainJoin},
	{"join/kept-while-another-leads", "an outcome was kept, and another flight has the lease. The outcome serves.",
		func(s *stage) {
			s.kept(-time.Minute)
			s.lease(another, 0)
		}, plainJoin},
	{"join/kept-but-fresh-is-asked", "an outcome was kept, of which the caller has no use. This flight leads.",
		func(s *stage) { s.kept(-time.Minute) }, join(func(r *protocol.JoinRequest) { r.Fresh = true })},
	{"join/kept-for-too-long", "an outcome was kept that finished before MaxAge: another group, or a server whose clock was set, kept it for longer.",
		func(s *stage) { s.kept(-4 * time.Minute) }, plainJoin},
	{"join/kept-from-the-future", "an outcome was kept that finishes in the future: the clock of Redis was set back. It is of no use.",
		func(s *stage) { s.kept(2 * time.Minute) }, plainJoin},
	{"join/kept-without-outcome", "what was kept has a time, and no outcome.",
		func(s *stage) { s.latest("finished", s.at(0)) }, plainJoin},
	{"join/kept-without-time", "what was kept has an outcome, and no time.",
		func(s *stage) { s.latest("outcome", "outcome of another") }, plainJoin},
	{"join/kept-time-is-garbage", "what was kept has an outcome, and a time that is none.",
		func(s *stage) { s.latest("finished", "garbage", "outcome", "outcome of another") }, plainJoin},
	{"join/kept-is-of-another-version", "what was kept is the flight that an earlier version wrote. It is of no use.",
		func(s *stage) { s.set("latest", another, maxAge) }, plainJoin},
}

var probes = []situation{
	{"probe/writes", "Redis runs scripts and takes writes.", nothing, probe},
}
