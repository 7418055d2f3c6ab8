package protocol_test

import "time"

// peeks ask what became of another flight.
var peeks = []situation{
	{"peek/running", "the flight has the lease.", func(s *stage) { s.lease(another, '1') }, peek},
	{"peek/done", "the flight has an outcome.",
		func(s *stage) {
			s.result(another, "finished", s.at(-time.Minute), "earliest", s.at(-time.Minute), "outcome", "outcome of another")
		}, peek},
	{"peek/done-while-the-next-runs", "the flight has an outcome, and the next one has the lease.",
		func(s *stage) {
			s.result(another, "finished", s.at(-time.Minute), "earliest", s.at(-time.Minute), "outcome", "outcome of another")
			s.lease(this, '0')
		}, peek},
	{"peek/done-at-a-time-that-is-garbage", "the flight has an outcome, and its time is none. It is as old as can be.",
		func(s *stage) { s.result(another, "finished", "garbage", "outcome", "outcome of another") }, peek},
	{"peek/gone", "nothing is left of the flight.", nothing, peek},
	{"peek/gone-while-the-next-runs", "the next flight has the lease.", func(s *stage) { s.lease(this, '1') }, peek},
	{"peek/result-without-outcome", "the result of the flight has a time, and no outcome.",
		func(s *stage) { s.result(another, "finished", s.at(0)) }, peek},
	{"peek/result-without-time", "the result of the flight has an outcome, and no time.",
		func(s *stage) { s.result(another, "outcome", "outcome of another") }, peek},
	{"peek/result-is-of-a-wrong-type", "a list stands as the result of the flight.",
		func(s *stage) { s.wrongType("result:" + another) }, peek},
	{"peek/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, peek},
	{"peek/lease-for-ever", "the flight has a lease without a TTL, which the next join will see to.",
		func(s *stage) { s.set("lease", "1"+another+" 1 <start> replica-b\n", 0) }, peek},
	{"peek/detached", "the key was forgotten while the flight runs. Those who wait for it still see it run.",
		func(s *stage) { s.set("detached:"+another, "1", leaseTTL) }, peek},
	{"peek/detached-and-ended", "the key was forgotten, and the flight has ended without an outcome.",
		func(s *stage) { s.set("detached:"+another, "-", handoffTTL) }, peek},
	{"peek/detached-for-ever", "the detached lease of the flight has no TTL. It is none.",
		func(s *stage) { s.set("detached:"+another, "1", 0) }, peek},
}

// renews extend the lease of this flight.
var renews = []situation{
	{"renew/held", "this flight has the lease.",
		func(s *stage) { s.set("lease", "1"+this+" 1 <start> replica-a\n", 5*time.Minute) }, renew},
	{"renew/lost", "this flight had a lease, which ran out.", nothing, renew},
	{"renew/lost-to-another", "another flight has the lease.", func(s *stage) { s.lease(another, '0') }, renew},
	{"renew/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, renew},
	{"renew/detached", "the key was forgotten. The detached lease is extended.",
		func(s *stage) { s.set("detached:"+this, "1", 5*time.Minute) }, renew},
}

// forgets drop what the key has.
var forgets = []situation{
	{"forget/nothing", "the key has nothing.", nothing, forget},
	{"forget/held", "a flight has the lease, which nobody has joined.",
		func(s *stage) { s.lease(another, '0'); s.attempts("1") }, forget},
	{"forget/held-and-joined", "a flight has the lease, which somebody has joined.",
		func(s *stage) { s.lease(another, '1'); s.attempts("1") }, forget},
	{"forget/held-for-ever", "a flight has the lease, which has no TTL. A detached lease without an end would never go.",
		func(s *stage) { s.set("lease", "1"+another+" 1 <start> replica-b\n", 0) }, forget},
	{"forget/kept", "an outcome was kept. Nobody finds it any more.", func(s *stage) { s.kept(-time.Minute) }, forget},
	{"forget/lease-is-garbage", "what stands as the lease is too short to have a flight.",
		func(s *stage) { s.set("lease", "garbage", leaseTTL) }, forget},
	{"forget/lease-is-of-a-wrong-type", "a list stands as the lease.", func(s *stage) { s.wrongType("lease") }, forget},
}
