package protocol_test

import (
	"fmt"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// marked is a key whose last outcome could not be shared.
func marked(s *stage) { s.set("lease", "!too large", 10*time.Second) }

// tagged is a lease of another flight, whose outcome only those with the tag can read.
func tagged(tag string) func(*stage) {
	return func(s *stage) {
		s.set("lease", fmt.Sprintf("0%s0000 1 <start> %d %s replica-b\n", another, leaseTTL.Milliseconds(), tag), leaseTTL)
	}
}

var tags = settings.Tagged("0123456789abcdef")

func taggedJoin(s *stage) call { return join(func(r *protocol.JoinRequest) { r.Settings = &tags })(s) }

// tooLarge has an outcome that cannot be shared.
func tooLarge(s *stage) call {
	return finish(func(_ *stage, r *protocol.FinishRequest) {
		r.Unshared, r.Outcome = protocol.TooLarge, []byte("too large")
	})(s)
}

// unshared are situations of keys and flights whose outcomes are of no use elsewhere.
var unshared = []situation{
	{"join/marked", "the key's last outcome was too large to travel. The caller runs its own function, and nothing is written.", marked, plainJoin},
	{"join/marked-by-itself", "the flight has finished, and its join is repeated. It finds what its finish left.",
		func(s *stage) { marked(s); s.over(this) }, plainJoin},
	{"join/marked-for-ever", "the mark has no TTL. It gets one.",
		func(s *stage) { s.set("lease", "!too large", 0) }, plainJoin},
	{"join/marked-for-too-long", "the mark lives longer than any is made to: the clock of Redis was set back. It is shortened.",
		func(s *stage) { s.set("lease", "!too large", 5*time.Minute) }, plainJoin},
	{"join/marked-and-kept", "a value was kept before the key was marked. It serves.",
		func(s *stage) { marked(s); s.kept(-time.Minute) }, plainJoin},
	{"join/tagged-alike", "another flight has the lease, whose outcome this replica can read.", tagged("0123456789abcdef"), taggedJoin},
	{"join/tagged-differently", "another flight has the lease, whose outcome this replica cannot read. The caller runs its own function, and the flight does not count as joined.",
		tagged("fedcba9876543210"), taggedJoin},
	{"finish/unshared", "somebody has joined the flight, whose outcome cannot be shared. They hear of it, and the key is marked.", held(1), tooLarge},
	{"finish/unshared-and-nobody-joined", "nobody has joined the flight, whose outcome cannot be shared. The key is marked.", held(0), tooLarge},
	{"finish/unshared-after-it-was-shared", "an earlier try shared the outcome, though that took too long to be told. What is stored stays, and nothing more is published.",
		func(s *stage) { s.result(this, "outcome of this") }, tooLarge},
	{"finish/unshared-again", "the finish ran, and its reply was lost. The mark of the first try stays.",
		func(s *stage) {
			marked(s)
			s.result(this, "too large")
		}, tooLarge},
	{"finish/unshared-and-vacant", "the outcome cannot be shared, and Redis lost the lease. The key is marked.", lost, tooLarge},
	{"finish/unshared-and-lost-to-another", "the outcome cannot be shared, and another flight has the lease, which stays.",
		func(s *stage) { lost(s); s.lease(another, 0) }, tooLarge},
	{"finish/unshared-and-forgotten", "the outcome cannot be shared, and the key was forgotten. It is not marked.",
		func(s *stage) { s.forgotten(this, "10001", leaseTTL) }, tooLarge},
	{"finish/marked", "the flight lost its lease, and another one's outcome could not be shared. This one is shared with those who joined it, and the mark stays.",
		func(s *stage) { lost(s); marked(s) }, plainFinish},
	{"peek/marked", "the flight has ended long ago, and the key is marked.", marked, peek},
	{"renew/marked", "the flight lost its lease, and another one's outcome could not be shared. Those who joined this one still see it run.",
		func(s *stage) { s.counted(this, 0); marked(s) }, renew},
	{"abandon/marked", "the flight lost its lease, and the key is marked. The mark stays.", marked, abandon(true)},
	{"leave/marked", "the flight has ended, and the key is marked. The mark stays.", marked, leave},
	{"forget/marked", "the key is marked. The next outcome may be shared.", marked, forget},
}
