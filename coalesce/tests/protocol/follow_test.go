package protocol_test

import "time"

// peeks ask what became of another flight.
var peeks = []situation{
	{"peek/running", "the flight has the lease.", func(s *stage) { s.lease(another, 1) }, peek},
	{"peek/done", "the flight has an outcome.",
		func(s *stage) {
			s.result(another, "outcome of another")
		}, peek},
	{"peek/done-while-the-next-runs", "the flight has an outcome, and the next one has the lease.",
		func(s *stage) {
			s.result(another, "outcome of another")
			s.lease(this, 0)
		}, peek},
	{"peek/gone", "nothing is left of the flight.", nothing, peek},
	{"peek/vanished", "Redis lost the lease before it was due. The leader has time to take it again.",
		func(s *stage) { s.counted(another, time.Minute) }, peek},
	{"peek/vanished-while-the-next-runs", "Redis lost the lease before it was due, and the next flight has it.",
		func(s *stage) { s.lease(this, 1); s.counted(another, time.Minute) }, peek},
	{"peek/vanished-and-due-too-late", "Redis lost the lease, which is due later than its leader asked for: the server's clock was set back.",
		func(s *stage) { s.counted(another, time.Hour) }, peek},
	{"peek/dead", "the lease has run out.", func(s *stage) { s.died(another) }, peek},
	{"peek/attempts-are-of-a-wrong-type", "a list stands as the attempts.", func(s *stage) { s.wrongType("attempts") }, peek},
	{"peek/gone-while-the-next-runs", "the next flight has the lease.", func(s *stage) { s.lease(this, 1) }, peek},
	{"peek/result-is-of-a-wrong-type", "a list stands as the result of the flight.",
		func(s *stage) { s.wrongType("result:" + another) }, peek},
	{"peek/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, peek},
	{"peek/lease-for-ever", "the flight has a lease without a TTL. It gets one, or its leader's death would never end it.",
		func(s *stage) { s.leaseFor(another, 1, 0) }, peek},
	{"peek/lease-for-too-long", "the flight has a lease that lives for longer than its leader asked for: the server's clock was set back. It gets the TTL that it had.",
		func(s *stage) { s.leaseFor(another, 1, time.Hour) }, peek},
	{"peek/lease-for-too-long-and-an-attempt", "the lease lives for longer than its leader asked for, and among the attempts it is due as late: the server's clock was set back. Both end with the TTL that it had.",
		func(s *stage) { s.leaseFor(another, 1, time.Hour); s.attempt(another, time.Hour, "") }, peek},
	{"peek/lease-without-numbers", "the flight has a lease that has been cut off. It is given the lease TTL at the most.",
		func(s *stage) { s.set("lease", "1"+another, time.Hour) }, peek},
	{"peek/forgotten", "the key was forgotten while the flight runs. Those who wait for it still see it run.",
		func(s *stage) { s.forgotten(another, "10001", leaseTTL) }, peek},
	{"peek/forgotten-and-due-too-late", "the key was forgotten, and the flight is due later than its leader asked for: the server's clock was set back.",
		func(s *stage) { s.forgotten(another, "10001", time.Hour) }, peek},
	{"peek/forgotten-and-dead", "the key was forgotten, and the leader has died since.",
		func(s *stage) { s.forgotten(another, "10001", -time.Minute) }, peek},
	{"peek/lost", "another flight has the lease that this one lost. Those who wait for it still see it run.",
		func(s *stage) { s.lease(this, 1); s.attempt(another, time.Minute, " l") }, peek},
	{"peek/attempts-have-garbage", "the flight stands among the attempts without a time.",
		func(s *stage) { s.do("HSET", s.real(prefix+":attempts"), another, "garbage") }, peek},
	{"peek/given-up", "the flight was given up.", func(s *stage) { s.over(another) }, peek},
	{"peek/mark-is-of-a-wrong-type", "a list stands as the mark that the flight is over.", func(s *stage) { s.wrongType("over:" + another) }, peek},
}

// renews extend the lease of this flight.
var renews = []situation{
	{"renew/held", "this flight has the lease, and one who has joined it is told.",
		func(s *stage) { s.leaseFor(this, 1, 5*time.Minute); s.counted(this, 0) }, renew},
	{"renew/held-and-not-counted", "this flight has the lease, which nobody has joined, and Redis lost the attempts. It is counted again.",
		func(s *stage) { s.lease(this, 0) }, renew},
	{"renew/vacant", "Redis lost the lease. This flight takes it again; who joined it is not known.",
		func(s *stage) { s.counted(this, 0) }, renew},
	{"renew/vacant-after-another", "another flight had the lease meanwhile, and has died. This flight takes it again.",
		func(s *stage) {
			s.attempt(this, 0, " l")
			s.died(another)
		}, renew},
	{"renew/vacant-and-not-counted", "Redis has nothing of this flight, whose key may have been forgotten. Those who joined it still see it run.", nothing, renew},
	{"renew/lost-to-another", "another flight has the lease. Those who joined this one still see it run, and its leader has not died.",
		func(s *stage) { s.lease(another, 0); s.counted(this, 0) }, renew},
	{"renew/lost-to-another-again", "another flight has the lease still.",
		func(s *stage) {
			s.lease(another, 0)
			s.attempt(this, 0, " l")
		}, renew},
	{"renew/lost-to-another-and-not-counted", "another flight has the lease, and its finish or a Forget has cleared this one away.",
		func(s *stage) { s.lease(another, 0) }, renew},
	{"renew/lost-for-good", "Redis lost all that it had of this flight, and the reply that said so may have been lost, too.",
		func(s *stage) { s.forgotten(this, "19999l", 0) }, renew},
	{"renew/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease"); s.counted(this, 0) }, renew},
	{"renew/attempts-are-of-a-wrong-type", "a list stands as the attempts. They begin anew.", func(s *stage) { s.lease(this, 0); s.wrongType("attempts") }, renew},
	{"renew/forgotten", "the key was forgotten. Those who joined the flight still see it run.",
		func(s *stage) { s.forgotten(this, "00000", 0) }, renew},
	{"renew/forgotten-and-joined", "the key was forgotten while others wait. They are told that the flight lives, and of that.",
		func(s *stage) { s.forgotten(this, "10001", 0) }, renew},
	{"renew/given-up", "the flight was given up, and the renewal comes too late.",
		func(s *stage) { s.over(this); s.counted(this, 0) }, renew},
}

// leaves have this flight wait no longer for another.
var leaves = []situation{
	{"leave/last", "this was the only follower. The mark goes, which tells the leader.", func(s *stage) { s.lease(another, 1) }, leave},
	{"leave/not-last", "others wait.", func(s *stage) { s.lease(another, 2) }, leave},
	{"leave/very-many", "nobody knows how many wait.", func(s *stage) { s.lease(another, 9999) }, leave},
	{"leave/nobody-joined", "nobody is counted.", func(s *stage) { s.lease(another, 0) }, leave},
	{"leave/again", "this follower has left before, and the reply was lost.",
		func(s *stage) { s.lease(another, 2); s.over(this) }, leave},
	{"leave/forgotten", "the key was forgotten, and this was the only follower.",
		func(s *stage) { s.forgotten(another, "10001", leaseTTL) }, leave},
	{"leave/forgotten-and-lost", "the key was forgotten after the flight had lost its lease: nobody knows how many wait.",
		func(s *stage) { s.forgotten(another, "19999l", leaseTTL) }, leave},
	{"leave/vanished", "Redis has lost the lease: nobody knows how many wait.",
		func(s *stage) { s.counted(another, leaseTTL) }, leave},
	{"leave/finished", "the flight has ended, and the next one has the lease.", func(s *stage) { s.lease(this, 1) }, leave},
	{"leave/given-up", "the flight was given up.", func(s *stage) { s.over(another) }, leave},
	{"leave/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, leave},
}

// forgets drop what the key has.
var forgets = []situation{
	{"forget/nothing", "the key has nothing.", nothing, forget},
	{"forget/held", "a flight has the lease, which nobody has joined.",
		func(s *stage) { s.lease(another, 0); s.counted(another, time.Minute) }, forget},
	{"forget/held-and-joined", "a flight has the lease, which two have joined.",
		func(s *stage) { s.lease(another, 2); s.counted(another, time.Minute) }, forget},
	{"forget/held-for-ever", "a flight has the lease, which has no TTL. It is due when its leader asked for.",
		func(s *stage) { s.leaseFor(another, 1, 0) }, forget},
	{"forget/held-for-too-long", "a flight has the lease, which lives for longer than its leader asked for: the server's clock was set back.",
		func(s *stage) { s.leaseFor(another, 1, time.Hour) }, forget},
	{"forget/vanished", "Redis has lost the lease of a flight that runs, and another leader has died. Those who wait for the first still see it run.",
		func(s *stage) { s.counted(another, time.Minute); s.died(this) }, forget},
	{"forget/again", "the key was forgotten before, and the flight runs still. What is known of it stays.",
		func(s *stage) { s.forgotten(another, "10001", time.Minute) }, forget},
	{"forget/its-own", "the Fleet that forgets leads the flight: it knows.",
		func(s *stage) { s.lease(this, 1); s.counted(this, time.Minute) }, forget},
	{"forget/held-up", "the leader has not renewed its lease in time. It may go on, so it is told; those who wait see that the flight is gone.",
		func(s *stage) { s.died(another) }, forget},
	{"forget/attempts-have-garbage", "among the attempts stands something that has no time.",
		func(s *stage) { s.do("HSET", s.real(prefix+":attempts"), "garbage", "garbage") }, forget},
	{"forget/kept", "an outcome was kept. Nobody finds it any more.", func(s *stage) { s.kept(-time.Minute) }, forget},
	{"forget/kept-large", "a large outcome was kept. The reply is its notice, so that its pieces can be let go.", func(s *stage) {
		s.latest("finished", s.at(-time.Minute), "outcome", "\x02\x06 notice", "trace", "")
	}, forget},
	{"forget/latest-is-of-a-wrong-type", "a list stands as what was kept.", func(s *stage) { s.wrongType("latest") }, forget},
	{"forget/lease-is-garbage", "what stands as the lease is too short to have a flight.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, forget},
	{"forget/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, forget},
	{"forget/on-a-cluster", "a flight has the lease. The key's channel is on its shard, and the control channels are everywhere.",
		func(s *stage) { s.lease(another, 1) }, forgetBy("SPUBLISH")},
}
