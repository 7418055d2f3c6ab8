package protocol_test

import (
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

func held(joined byte) func(*stage) {
	return func(s *stage) {
		s.lease(this, joined)
		s.attempts("1")
	}
}

func again(_ *stage, r *protocol.FinishRequest) { r.Message = protocol.Again }

// finishes come while the flight has its lease, or a detached one.
var finishes = []situation{
	{"finish/nobody-joined", "nobody has joined the flight. The lease is released, and nothing is stored or published.", held('0'), plainFinish},
	{"finish/joined", "somebody has joined the flight. The outcome is published, and stored for who misses the message.", held('1'), plainFinish},
	{"finish/joined-large", "somebody has joined the flight, whose outcome is too large to publish. A notice says that it is stored.", held('1'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Message = protocol.Notice })},
	{"finish/joined-on-a-cluster", "somebody has joined the flight, on a Redis Cluster. The message stays on the shard.", held('1'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Publish = "SPUBLISH" })},
	{"finish/joined-late", "somebody has joined the flight, and the command was held up. They may have joined after the function ended, and learn the age from the store.",
		held('1'),
		finish(func(s *stage, r *protocol.FinishRequest) { r.Earliest = s.at(-2 * time.Minute) })},
	{"finish/joined-sent-later", "somebody has joined the flight, whose outcome waited for two minutes before it was sent. The store says when the function ended.",
		held('1'),
		finish(func(s *stage, r *protocol.FinishRequest) { r.Earliest, r.Age = s.at(-2*time.Minute), 2*time.Minute })},
	{"finish/joined-again", "somebody has joined the flight, and the first try did not reach Redis.", held('1'), finish(again)},
	{"finish/joined-outlived", "somebody has joined the flight, and its lease was renewed too late, but nobody took it.", held('1'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Outlived = true })},
	{"finish/kept", "MaxAge keeps the outcome, which nobody has joined. It is stored, and not published.", held('0'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/kept-shortly", "MaxAge keeps the outcome for a minute. It stands for the hand-off TTL all the same: somebody has joined.", held('1'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = time.Minute })},
	{"finish/kept-with-trace", "MaxAge keeps the outcome, and a hook observes the flight.", held('0'),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge, r.Trace = maxAge, "trace-of-this" })},
	{"finish/kept-late", "MaxAge keeps the outcome, and the command was held up. It is kept as if the function had ended as early as can be.", held('0'),
		finish(func(s *stage, r *protocol.FinishRequest) { r.MaxAge, r.Earliest = maxAge, s.at(-2*time.Minute) })},
	{"finish/forgotten", "the key was forgotten while the flight ran, and nobody had joined it.",
		func(s *stage) { s.set("detached:"+this, "0", leaseTTL) }, plainFinish},
	{"finish/forgotten-and-joined", "the key was forgotten while the flight ran, and somebody had joined it.",
		func(s *stage) { s.set("detached:"+this, "1", leaseTTL) }, plainFinish},
	{"finish/forgotten-kept", "the key was forgotten while the flight ran: MaxAge must not keep its outcome.",
		func(s *stage) { s.set("detached:"+this, "1", leaseTTL) },
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/forgotten-while-another-leads", "the key was forgotten while the flight ran, and another one has led since. Its attempts stay.",
		func(s *stage) {
			s.set("detached:"+this, "1", leaseTTL)
			s.leaseFrom(another, '0', -time.Minute)
			s.attempts("1")
		}, plainFinish},
	{"finish/forgotten-again", "the key was forgotten, the finish ran, and its reply was lost. Another has led since; that is no loss of the lease.",
		func(s *stage) {
			s.set("detached:"+this, "-", handoffTTL)
			s.leaseFrom(another, '0', -time.Minute)
		}, finish(again)},
}

// lateFinishes come when the lease is gone.
var lateFinishes = []situation{
	{"finish/released-before", "the finish ran, and its reply was lost. The second try finds nothing.", nothing, finish(again)},
	{"finish/released-before-and-another-died", "the finish ran, and its reply was lost. Another has led and died since, whose attempt stays.",
		func(s *stage) { s.attempts("1") }, finish(again)},
	{"finish/released-before-and-another-leads", "the finish ran, and its reply was lost. Another has led since, which cannot have begun before the function ended.",
		func(s *stage) {
			s.leaseFrom(another, '1', time.Minute)
			s.attempts("1")
		}, finish(again)},
	{"finish/lost", "the lease ran out, and the attempt is still counted. The flight cannot know who joined it: it publishes.",
		func(s *stage) { s.attempts("1") }, plainFinish},
	{"finish/lost-without-attempts", "the lease is gone, and so is the count: an earlier finish, or Redis itself, took both.", nothing, plainFinish},
	{"finish/lost-and-attempts-are-of-a-wrong-type", "the lease is gone, and a list stands as the count of attempts.",
		func(s *stage) { s.wrongType("attempts") }, plainFinish},
	{"finish/lost-by-a-late-command", "the lease is gone, and the command was held up: the count may be another's.",
		func(s *stage) { s.attempts("1") },
		finish(func(s *stage, r *protocol.FinishRequest) { r.Earliest = s.at(-2 * time.Minute) })},
	{"finish/lost-and-outlived", "the lease is gone, and the function ran for longer than it. This replica knows that it was lost.", nothing,
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Outlived = true })},
	{"finish/lost-to-another", "another flight took the lease while the function ran.",
		func(s *stage) {
			s.leaseFrom(another, '0', -time.Minute)
			s.attempts("2")
		}, plainFinish},
	{"finish/lost-to-another-and-outlived", "another flight has the lease, and the function ran for longer than its own.",
		func(s *stage) { s.leaseFrom(another, '0', time.Minute) },
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Outlived = true })},
	{"finish/lost-and-kept", "another flight took the lease while the function ran. MaxAge does not keep this outcome.",
		func(s *stage) { s.leaseFrom(another, '0', -time.Minute) },
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/lease-is-garbage", "what stands as the lease is none. Nothing says that this flight lost its own.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, plainFinish},
	{"finish/lease-is-of-a-wrong-type", "a list stands as the lease. Nothing says that this flight lost its own.",
		func(s *stage) { s.wrongType("lease") }, plainFinish},
}

// abandons give this flight up.
var abandons = []situation{
	{"abandon/nobody-joined", "nobody has joined the flight. It leaves nothing, and its attempt does not count.", held('0'), abandon(false)},
	{"abandon/nobody-joined-after-a-death", "nobody has joined the flight, and another leader has died before. That attempt stays.",
		func(s *stage) { s.lease(this, '0'); s.attempts("2") }, abandon(false)},
	{"abandon/joined", "somebody has joined the flight, which goes on for them.", held('1'), abandon(false)},
	{"abandon/joined-and-forced", "somebody has joined the flight, which cannot go on. They hear of it, and take over.", held('1'), abandon(true)},
	{"abandon/attempts-are-garbage", "the count of attempts is no number. It is removed.",
		func(s *stage) { s.lease(this, '0'); s.attempts("garbage") }, abandon(false)},
	{"abandon/forgotten", "the key was forgotten, and nobody had joined the flight.",
		func(s *stage) { s.set("detached:"+this, "0", leaseTTL) }, abandon(false)},
	{"abandon/forgotten-and-joined", "the key was forgotten, and somebody had joined the flight, which goes on for them.",
		func(s *stage) { s.set("detached:"+this, "1", leaseTTL) }, abandon(false)},
	{"abandon/forgotten-joined-and-forced", "the key was forgotten, somebody had joined the flight, and it cannot go on.",
		func(s *stage) { s.set("detached:"+this, "1", leaseTTL) }, abandon(true)},
	{"abandon/before-its-join", "the flight has no lease: it lost it, or its join is yet to come. A mark tells that join that it is too late.", nothing, abandon(false)},
	{"abandon/again", "the flight was abandoned before.", func(s *stage) { s.set("detached:"+this, "-", handoffTTL) }, abandon(false)},
	{"abandon/lost-to-another", "another flight has the lease, which stays.", func(s *stage) { s.lease(another, '1'); s.attempts("1") }, abandon(true)},
	{"abandon/lease-is-of-a-wrong-type", "a list stands as the lease, which stays.", func(s *stage) { s.wrongType("lease") }, abandon(false)},
}
