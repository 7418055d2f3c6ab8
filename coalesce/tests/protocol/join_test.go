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
	{"join/free-after-a-death", "a leader has died. This flight is the second attempt.",
		func(s *stage) { s.attempts("1") }, plainJoin},
	{"join/free-last-attempt", "as many leaders have died as may. This flight is the last attempt.",
		func(s *stage) { s.attempts("2") }, plainJoin},
	{"join/attempts-used-up", "more leaders have died than may. Nobody leads, and nothing is written: the count must end by itself.",
		func(s *stage) { s.attempts("3") }, plainJoin},
	{"join/attempts-are-garbage", "the count of attempts is no number. It counts as none.",
		func(s *stage) { s.attempts("garbage") }, plainJoin},
	{"join/attempts-are-of-a-wrong-type", "the count of attempts is a list. It counts as none.",
		func(s *stage) { s.wrongType("attempts") }, plainJoin},
	{"join/held-by-this-flight", "this flight has the lease: the reply to its first join was lost. It leads, and the lease is extended.",
		func(s *stage) { s.set("lease", "0"+this+" 2 <start> replica-a\n", 5*time.Minute) }, plainJoin},
	{"join/held-by-this-flight-garbage", "this flight has the lease, without the numbers. It leads as if it were the first attempt, from now.",
		func(s *stage) { s.set("lease", "0"+this+" garbage", leaseTTL) }, plainJoin},
	{"join/held-by-another", "another flight has the lease, and nobody has joined it yet. The mark is set that tells its leader.",
		func(s *stage) { s.lease(another, '0') }, plainJoin},
	{"join/held-by-another-and-joined", "another flight has the lease, and somebody has joined it. The mark is there.",
		func(s *stage) { s.lease(another, '1') }, plainJoin},
	{"join/held-by-another-observed", "another flight has the lease, and a hook observes this one. It hears the trace of the other, and the time.",
		func(s *stage) {
			s.set("lease", "1"+another+" 1 <start> replica\nb\ntrace-of-another", leaseTTL)
		},
		join(func(r *protocol.JoinRequest) { r.Trace = "+trace-of-this" })},
	{"join/held-by-another-without-trace", "another flight has the lease, whose replica wrote no trace. A hook observes this one, and hears none.",
		func(s *stage) { s.set("lease", "1"+another+" 1 <start> replica-b", leaseTTL) },
		join(func(r *protocol.JoinRequest) { r.Trace = "+" })},
	{"join/held-by-another-for-ever", "another flight has the lease, which has no TTL. It gets one, or its leader's death would never end it.",
		func(s *stage) { s.set("lease", "1"+another+" 1 <start> replica-b\n", 0) }, plainJoin},
	{"join/lease-is-garbage", "what stands as the lease is none. It is overwritten.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, plainJoin},
	{"join/lease-is-cut-off", "the lease is too short to have a flight. It is overwritten.",
		func(s *stage) { s.set("lease", "0another-flight ", leaseTTL) }, plainJoin},
	{"join/lease-is-of-a-wrong-type", "a list stands as the lease. It is overwritten.",
		func(s *stage) { s.wrongType("lease") }, plainJoin},
	{"join/abandoned-before", "this flight was abandoned: its join came too late, and nobody would release the lease.",
		func(s *stage) { s.set("detached:"+this, "-", handoffTTL) }, plainJoin},
}

// keeps are what a join finds where MaxAge has kept an outcome.
var keeps = []situation{
	{"join/kept", "an outcome was kept that finished within MaxAge. No flight is needed.",
		func(s *stage) { s.kept(-time.Minute) }, plainJoin},
	{"join/kept-with-trace", "an outcome was kept, with the trace of its flight.",
		func(s *stage) {
			s.kept(-time.Minute)
			s.result(another, "trace", "trace-of-another")
		}, plainJoin},
	{"join/kept-while-another-leads", "an outcome was kept, and another flight has the lease. The outcome serves.",
		func(s *stage) {
			s.kept(-time.Minute)
			s.lease(another, '0')
		}, plainJoin},
	{"join/kept-but-fresh-is-asked", "an outcome was kept, of which the caller has no use. This flight leads.",
		func(s *stage) { s.kept(-time.Minute) }, join(func(r *protocol.JoinRequest) { r.Fresh = true })},
	{"join/kept-for-too-long", "an outcome was kept that finished before MaxAge: another group, or a server whose clock was set, kept it for longer.",
		func(s *stage) { s.kept(-4 * time.Minute) }, plainJoin},
	{"join/kept-from-the-future", "an outcome was kept that finishes in the future: the clock of Redis was set back. It is of no use.",
		func(s *stage) { s.kept(2 * time.Minute) }, plainJoin},
	{"join/kept-no-more", "the flight of the last outcome is known, and its outcome is gone.",
		func(s *stage) { s.set("latest", another, maxAge) }, plainJoin},
	{"join/kept-without-outcome", "what was kept has a time, and no outcome.",
		func(s *stage) {
			s.set("latest", another, maxAge)
			s.result(another, "earliest", s.at(0))
		}, plainJoin},
	{"join/kept-time-is-garbage", "what was kept has an outcome, and a time that is none.",
		func(s *stage) {
			s.set("latest", another, maxAge)
			s.result(another, "earliest", "garbage", "outcome", "outcome of another")
		}, plainJoin},
	{"join/kept-is-of-a-wrong-type", "a list stands as the kept outcome.",
		func(s *stage) {
			s.set("latest", another, maxAge)
			s.wrongType("result:" + another)
		}, plainJoin},
	{"join/latest-is-of-a-wrong-type", "a list stands as the flight of the last outcome.",
		func(s *stage) { s.wrongType("latest") }, plainJoin},
}

var probes = []situation{
	{"probe/writes", "Redis runs scripts and takes writes.", nothing, probe},
}
