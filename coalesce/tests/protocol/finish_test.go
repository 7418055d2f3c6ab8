package protocol_test

import (
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// held is this flight's lease, which so many have joined.
func held(joined int) func(*stage) {
	return func(s *stage) {
		s.lease(this, joined)
		s.counted(this, 0)
	}
}

// lost is this flight without its lease, which has run out.
func lost(s *stage) { s.counted(this, -time.Minute) }

// finishes come while the flight has its lease, or after its key was forgotten.
var finishes = []situation{
	{"finish/nobody-joined", "nobody has joined the flight. The lease is released, and nothing is stored or published.", held(0), plainFinish},
	{"finish/nobody-joined-after-a-death", "nobody has joined the flight, and a leader had died before. The key is none that kills.",
		func(s *stage) { held(0)(s); s.died(another) }, plainFinish},
	{"finish/nobody-joined-while-another-lives", "nobody has joined the flight, and another has lost its lease, but is not due. It stays among the attempts.",
		func(s *stage) { held(0)(s); s.counted(another, time.Minute) }, plainFinish},
	{"finish/nobody-joined-and-its-attempt-is-gone", "nobody has joined the flight, which does not stand among the attempts, as another does that lives.",
		func(s *stage) { s.lease(this, 0); s.counted(another, time.Minute) }, plainFinish},
	{"finish/nobody-joined-while-one-that-was-forgotten-lives", "nobody has joined the flight. One before it, whose key was forgotten, runs still, and another has died.",
		func(s *stage) {
			held(0)(s)
			s.forgotten(another, "10001", time.Minute)
			s.forgotten("third-flight-22-chars-", "00000", -time.Minute)
		}, plainFinish},
	{"finish/nobody-joined-and-attempts-have-garbage", "nobody has joined the flight, and among the attempts stands something that has no time.",
		func(s *stage) { held(0)(s); s.do("HSET", s.real(prefix+":attempts"), "garbage", "garbage") }, plainFinish},
	{"finish/joined", "somebody has joined the flight. The outcome is published, and stored for who misses the message.", held(1), plainFinish},
	{"finish/joined-on-a-cluster", "somebody has joined the flight, on a Redis Cluster. The message stays on the shard.", held(1),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Publish = "SPUBLISH" })},
	{"finish/clock-was-set-back", "the server's clock was set back while the flight ran: by what it shows now, the function ended before the leader says. The outcome says so, too.", held(1),
		finish(func(_ *stage, r *protocol.FinishRequest) {
			r.Since, r.Outcome = 100*365*24*time.Hour, []byte("two-bytes and a flight, |8 bytes|and the rest")
		})},
	{"finish/kept", "MaxAge keeps the outcome, which nobody has joined. It is stored, and not published.", held(0),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/kept-shortly", "MaxAge keeps the outcome for a minute. It stands for the hand-off TTL all the same: somebody has joined.", held(1),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = time.Minute })},
	{"finish/kept-with-trace", "MaxAge keeps the outcome, and a hook observes the flight.", held(0),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge, r.Trace = maxAge, "trace-of-this" })},
	{"finish/kept-late", "MaxAge keeps the outcome, and the command was held up. The store says when the function ended.", held(0),
		finish(func(s *stage, r *protocol.FinishRequest) {
			r.MaxAge, r.Finished = maxAge, uint64(s.at(-2*time.Minute))
		})},
	{"finish/forgotten", "the key was forgotten while the flight ran, and nobody had joined it.",
		func(s *stage) { s.forgotten(this, "00000", leaseTTL) }, plainFinish},
	{"finish/forgotten-and-joined", "the key was forgotten while the flight ran, and somebody had joined it.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) }, plainFinish},
	{"finish/forgotten-kept", "the key was forgotten while the flight ran: MaxAge must not keep its outcome.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) },
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/forgotten-while-another-leads", "the key was forgotten while the flight ran, and another one has led since. That attempt stays.",
		func(s *stage) {
			s.forgotten(this, "10001", leaseTTL)
			s.lease(another, 0)
			s.counted(another, time.Minute)
		}, plainFinish},
}

// pieces are what becomes of a large outcome.
var pieces = []situation{
	{"finish/asks-and-joined", "somebody has joined the flight, whose outcome is large. It is wanted: it is to be stored first.", held(1), ask},
	{"finish/asks-and-nobody-joined", "nobody has joined the flight, whose outcome is large. The lease is released, and nothing is stored.", held(0), ask},
	{"finish/asks-and-is-kept", "nobody has joined the flight, whose outcome is large, and MaxAge is to keep it.", held(0),
		finish(func(_ *stage, r *protocol.FinishRequest) { r.Ask, r.MaxAge = true, maxAge })},
	{"finish/asks-and-lost", "the lease ran out. Nobody knows who has joined.", lost, ask},
	{"finish/asks-and-forgotten", "the key was forgotten while the flight ran, and somebody had joined it.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) }, ask},
	{"finish/asks-and-forgotten-and-nobody-joined", "the key was forgotten while the flight ran, and nobody had joined it.",
		func(s *stage) { s.forgotten(this, "00000", leaseTTL) }, ask},
	{"store/handed-over", "the pieces wait for those who have joined.", held(1), store(0)},
	{"store/kept-shortly", "MaxAge and a lease TTL are no longer than the hand-off TTL, for which the pieces live.", held(1), store(time.Minute)},
	{"store/kept", "MaxAge keeps the outcome: its pieces live a lease TTL longer.", held(1), store(maxAge)},
	{"store/again", "the pieces are there: the reply to the first try was lost.",
		func(s *stage) { held(1)(s); s.set("result:"+this+":0", "first", time.Minute) }, store(0)},
	{"expire/kept", "the pieces were kept, and are forgotten now.", func(s *stage) { s.set("result:"+another+":0", "first", time.Hour) }, expire},
	{"fetch/stored", "the pieces are there.",
		func(s *stage) {
			s.set("result:"+another+":0", "first", handoffTTL)
			s.set("result:"+another+":1", "second", handoffTTL)
		}, fetch},
	{"fetch/dropped", "Redis has dropped a piece.",
		func(s *stage) { s.set("result:"+another+":1", "second", handoffTTL) }, fetch},
	{"fetch/shorter", "a piece is shorter than it should be.",
		func(s *stage) {
			s.set("result:"+another+":0", "fir", handoffTTL)
			s.set("result:"+another+":1", "second", handoffTTL)
		}, fetch},
	{"fetch/of-a-wrong-type", "a list stands as a piece.",
		func(s *stage) {
			s.set("result:"+another+":0", "first", handoffTTL)
			s.wrongType("result:" + another + ":1")
		}, fetch},
}

// lateFinishes come when the lease is gone.
var lateFinishes = []situation{
	{"finish/released-before", "the finish ran, and its reply was lost. The second try finds nothing.", nothing, plainFinish},
	{"finish/released-before-and-another-died", "the finish ran, and its reply was lost. Another has led and died since: that attempt stays.",
		func(s *stage) { s.died(another) }, plainFinish},
	{"finish/released-before-and-another-leads", "the finish ran, and its reply was lost. Another has led since: its lease and its attempt stay.",
		func(s *stage) {
			s.lease(another, 1)
			s.counted(another, time.Minute)
		}, plainFinish},
	{"finish/lost-for-good", "Redis lost all that it had of this flight, which its last renewal has told.",
		func(s *stage) { s.forgotten(this, "19999l", leaseTTL) }, plainFinish},
	{"finish/lost", "the lease ran out. The flight cannot know who joined it: it publishes, and its leader has not died.", lost, plainFinish},
	{"finish/lost-and-attempts-are-of-a-wrong-type", "the lease is gone, and a list stands as the attempts.",
		func(s *stage) { s.wrongType("attempts") }, plainFinish},
	{"finish/lost-to-another", "another flight took the lease while the function ran.",
		func(s *stage) {
			lost(s)
			s.lease(another, 0)
			s.counted(another, time.Minute)
		}, plainFinish},
	{"finish/lost-to-another-and-renewed", "another flight took the lease while the function ran, and a renewal has found that.",
		func(s *stage) {
			s.attempt(this, time.Minute, " l")
			s.lease(another, 0)
			s.counted(another, time.Minute)
		}, plainFinish},
	{"finish/lost-and-kept", "another flight took the lease while the function ran. MaxAge does not keep this outcome.",
		func(s *stage) { lost(s); s.lease(another, 0) },
		finish(func(_ *stage, r *protocol.FinishRequest) { r.MaxAge = maxAge })},
	{"finish/given-up", "the flight was given up before: a codec panicked.", func(s *stage) { s.over(this) }, plainFinish},
	{"finish/lease-is-garbage", "what stands as the lease is none. Nothing says that this flight lost its own.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, plainFinish},
	{"finish/lease-is-of-a-wrong-type", "a list stands as the lease. Nothing says that this flight lost its own.",
		func(s *stage) { s.wrongType("lease") }, plainFinish},
}

// abandons give this flight up.
var abandons = []situation{
	{"abandon/nobody-joined", "nobody has joined the flight. Its attempt does not count.", held(0), abandon(false)},
	{"abandon/nobody-joined-after-a-death", "nobody has joined the flight, and another leader has died before. That attempt stays.",
		func(s *stage) { held(0)(s); s.died(another) }, abandon(false)},
	{"abandon/joined", "somebody has joined the flight, which goes on for them.", held(1), abandon(false)},
	{"abandon/joined-and-forced", "somebody has joined the flight, which cannot go on. They hear of it, and take over.", held(1), abandon(true)},
	{"abandon/attempts-are-of-a-wrong-type", "a list stands as the attempts. It stays for a join to replace.",
		func(s *stage) { s.lease(this, 0); s.wrongType("attempts") }, abandon(false)},
	{"abandon/forgotten", "the key was forgotten, and nobody had joined the flight.",
		func(s *stage) { s.forgotten(this, "00000", leaseTTL) }, abandon(false)},
	{"abandon/forgotten-and-joined", "the key was forgotten, and somebody had joined the flight, which goes on for them.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) }, abandon(false)},
	{"abandon/forgotten-joined-and-forced", "the key was forgotten, somebody had joined the flight, and it cannot go on.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) }, abandon(true)},
	{"abandon/vanished", "Redis has lost the lease, which no renewal has found yet. Nobody knows who waits for the flight, which goes on for them.", func(s *stage) { s.counted(this, time.Minute) }, abandon(false)},
	{"abandon/lost", "another flight has the lease. Nobody knows who waits for this one, which goes on for them.",
		func(s *stage) { s.lease(another, 1); s.attempt(this, time.Minute, " l") }, abandon(false)},
	{"abandon/before-its-join", "the flight has no lease: it lost it, or its join is yet to come. A mark tells that join that it is too late.", nothing, abandon(false)},
	{"abandon/again", "the flight was abandoned before.", func(s *stage) { s.over(this) }, abandon(false)},
	{"abandon/lost-to-another", "another flight has the lease, which stays.",
		func(s *stage) { lost(s); s.lease(another, 1); s.counted(another, time.Minute) }, abandon(true)},
	{"abandon/lease-is-of-a-wrong-type", "a list stands as the lease, which stays.", func(s *stage) { s.wrongType("lease") }, abandon(false)},
}
