/*
 * A model of calls for many keys (DoMany), which run one function for all keys that
 * they lead.
 *
 * What a flight of one key does is in protocol.pml. Here a flight is no more than a
 * lease, an outcome, and a leader that lives or is dead; what is modelled is what makes
 * the flights of one call depend on each other: the function starts when the joins are
 * answered, and never waits for the function of another; what a dead leader led is taken
 * over together.
 *
 *   proctype Batch     a call of DoMany, on a replica of its own
 *   proctype Function  one run of its function, for the keys that it leads
 *   proctype World     leases of the dead that run out, replicas that die, the end of a
 *                      flight that its replica has yet to release
 *
 * There is no clock. The settings are those of the environment, as in protocol.pml.
 */

#define MOST_BATCHES 3
#define KEYS         2

hidden byte BATCHES = 2;     /* calls, each for both keys, each on a replica of its own */
hidden byte CRASHES;         /* replicas that die while they run a function */
hidden byte LOST_LEASES;     /* leases of a leader that lives that followers see gone: Redis lost everything */
hidden byte CLUSTER;         /* 1: the keys are on two servers: joins, looks and renewals are apart */
hidden byte ENDED;           /* 1: the first replica has ended a flight of the first key, and Redis does not know yet */
hidden byte ENDLESS;         /* 1: no function returns, and what Redis does not know it never learns */

hidden byte BREAK_FUNCTION_WAITS_FOR_FOLLOWED, BREAK_TAKEOVER_WAITS_FOR_FUNCTION, BREAK_ENDED_FLIGHT_IS_WAITED_FOR;
hidden byte BREAK_TAKEOVER_OF_EACH_KEY, BREAK_TAKEOVER_OF_THOSE_GONE_YET, BREAK_TAKEOVER_WAITS_FOR_WHO_LIVES;
hidden byte BREAK_KEY_LED_TWICE;
hidden byte WITNESS_CROSSED, WITNESS_TAKEOVER, WITNESS_SHARED_TAKEOVER, WITNESS_AWAITED;

#define setting(name) { char *value = getenv(#name); if (value) name = atoi(value); }

inline read_settings() {
	c_code {
		setting(BATCHES) setting(CRASHES) setting(LOST_LEASES) setting(CLUSTER) setting(ENDED) setting(ENDLESS)
		setting(BREAK_FUNCTION_WAITS_FOR_FOLLOWED) setting(BREAK_TAKEOVER_WAITS_FOR_FUNCTION)
		setting(BREAK_ENDED_FLIGHT_IS_WAITED_FOR) setting(BREAK_TAKEOVER_OF_EACH_KEY)
		setting(BREAK_TAKEOVER_OF_THOSE_GONE_YET) setting(BREAK_TAKEOVER_WAITS_FOR_WHO_LIVES)
		setting(BREAK_KEY_LED_TWICE) setting(WITNESS_CROSSED) setting(WITNESS_TAKEOVER)
		setting(WITNESS_SHARED_TAKEOVER) setting(WITNESS_AWAITED)
	};
	assert(BATCHES <= MOST_BATCHES);
	crashes = CRASHES; lost_leases = LOST_LEASES
}

#define NONE 0
#define ALL  3               /* the set of both keys */
#define OWN_ENDED 9          /* the holder of a lease: the first replica's flight that has ended */
#define bit(i)       (1 << (i))
#define has(set, i)  (((set) & bit(i)) != 0)
#define add(set, i)  set = set | bit(i)
#define drop(set, i) set = set & ~bit(i)

/* Redis. A batch leads each key once at most, so that its number is the flight's. */
byte lease[KEYS];            /* the batch that holds it, or NONE */
byte outcome[KEYS];          /* set of batches that have shared one */

byte dead;                   /* set of batches whose replica is dead */
byte running;                /* set of batches whose function runs */
byte crashes, lost_leases;

/* What the properties alone know. */
byte deaths;                 /* leaders that have died, or seemed to */
byte flying[KEYS];           /* set of batches that lead the key, and that have not died or lost their lease */

hidden byte P1_one_flight, P6_taken_over_together;
hidden byte k;

#define verdict(name, claim) name = (claim); assert(name)
#define witness(name, event) assert(!(name && (event)))

/* join.lua for one key. */
inline join_script(key) {
	if
	:: lease[key] == NONE || BREAK_KEY_LED_TWICE ->
		verdict(P1_one_flight, flying[key] == 0);
		lease[key] = me;
		add(flying[key], me);
		add(leads, key)
	:: lease[key] == OWN_ENDED && me == 1 -> add(awaits, key)
	:: else -> leader[key] = lease[key]; add(follows, key)
	fi;
	drop(joins, key)
}

#define ended(key)   (has(outcome[key], leader[key]))
#define is_gone(key) (!ended(key) && lease[key] != leader[key])

proctype Function(byte me; byte keys) {
	{
	atomic {
		add(running, me)
	};
end_runs: /* it may run for ever */
	atomic {
		!ENDLESS -> drop(running, me);
		for (k : 0 .. KEYS - 1) {
			if
			:: has(keys, k) ->
				drop(flying[k], me);
				add(outcome[k], me);
				lease[k] = (lease[k] == me -> NONE : lease[k])
			:: else
			fi
		};
		k = 0;
		keys = 0
	}
	} unless { atomic { has(dead, me) -> keys = 0 } }
}

proctype Batch(byte me) {
	byte joins = ALL;        /* keys whose join is yet to be answered */
	byte leads, follows, awaits, gone, got;
	byte leader[KEYS];       /* of those that are followed */
	byte took;               /* how often the function was called for keys of dead leaders */
	bool again;

	{
joining:
	do
	:: atomic { !CLUSTER && joins != 0 -> /* one script for all keys */
		for (k : 0 .. KEYS - 1) {
			if
			:: has(joins, k) -> join_script(k)
			:: else
			fi
		};
		k = 0 }
	:: atomic { CLUSTER && has(joins, 0) -> join_script(0) }
	:: atomic { CLUSTER && has(joins, 1) -> join_script(1) }
	:: joins == 0 -> break
	od;
starts: /* the joins are answered */
	if
	:: atomic { leads == 0 -> again = false }
	:: atomic { leads != 0 && !(BREAK_FUNCTION_WAITS_FOR_FOLLOWED && follows != 0) &&
			!(BREAK_TAKEOVER_WAITS_FOR_FUNCTION && again && has(running, me)) &&
			!(BREAK_ENDED_FLIGHT_IS_WAITED_FOR && awaits != 0) ->
		witness(WITNESS_CROSSED, follows != 0 && leads != 0 && has(running, leader[(has(follows, 0) -> 0 : 1)]));
		if
		:: again ->
			took++;
			witness(WITNESS_TAKEOVER, leads == ALL);
			witness(WITNESS_SHARED_TAKEOVER, leads != ALL && follows != 0);
			/* One call for all that a dead leader led; a key that was joined later is another. */
			verdict(P6_taken_over_together, took <= deaths + ENDED)
		:: else
		fi;
		run Function(me, leads);
		got = got | leads;
		leads = 0;
		again = false }
	fi;
end_waits: /* for the functions of others, and for its own */
	do
	:: atomic { has(follows, 0) && ended(0) -> drop(follows, 0); leader[0] = NONE }
	:: atomic { has(follows, 1) && ended(1) -> drop(follows, 1); leader[1] = NONE }
	:: atomic { awaits != 0 && lease[0] != OWN_ENDED -> /* it joins what it could not yet */
		witness(WITNESS_AWAITED, has(running, me));
		joins = awaits;
		awaits = 0;
		goto joining }
	:: atomic { has(follows, 0) && is_gone(0) -> add(gone, 0); goto looks }
	:: atomic { has(follows, 1) && is_gone(1) -> add(gone, 1); goto looks }
	:: atomic { follows == 0 && awaits == 0 && (!has(got, 0) || has(outcome[0], me)) &&
			(!has(got, 1) || has(outcome[1], me)) -> break }
	od;
	goto answered;
looks: /* at the other keys that the same leader led */
	atomic {
		for (k : 0 .. KEYS - 1) {
			if
			:: has(follows & ~gone, k) && leader[k] == leader[1 - k] && is_gone(k) && !BREAK_TAKEOVER_OF_EACH_KEY ->
				add(gone, k)
			:: else
			fi
		};
		k = 0;
		/* One that seems to run may have a lease that runs out a moment later. */
		if
		:: gone != ALL && follows == ALL && leader[0] == leader[1] && !BREAK_TAKEOVER_OF_THOSE_GONE_YET &&
				!BREAK_TAKEOVER_OF_EACH_KEY -> skip
		:: else -> goto rejoins
		fi
	};
	if
	:: atomic { is_gone(0) && is_gone(1) -> gone = ALL }
	:: atomic { ended(0) || ended(1) -> skip }
	/* It was renewed: its leader lives. */
	:: atomic { !has(dead, leader[0]) && !BREAK_TAKEOVER_WAITS_FOR_WHO_LIVES -> skip }
	fi;
rejoins:
	atomic {
		joins = gone;
		again = again || (has(gone, 0) && leader[0] != OWN_ENDED) || (has(gone, 1) && leader[1] != OWN_ENDED);
		follows = follows & ~gone;
		for (k : 0 .. KEYS - 1) {
			leader[k] = (has(gone, k) -> NONE : leader[k])
		};
		k = 0;
		gone = 0;
		goto joining
	};
answered:
	skip
	} unless { atomic { has(dead, me) -> joins = 0; leads = 0; follows = 0; awaits = 0; gone = 0 } }
}

proctype World() {
	byte b;
end:
	do
	/* A replica dies while it runs a function. */
	:: atomic { crashes > 0 && running != 0 ->
		b = 1;
		do
		:: has(running, b) -> break
		:: (running >> (b + 1)) != 0 -> b++
		od;
		crashes--;
		deaths++;
		add(dead, b);
		drop(running, b);
		for (k : 0 .. KEYS - 1) { drop(flying[k], b) };
		k = 0;
		b = 0 }
	/* Leases of the dead run out, one after the other. */
	:: atomic { lease[0] != NONE && lease[0] != OWN_ENDED && has(dead, lease[0]) -> lease[0] = NONE }
	:: atomic { lease[1] != NONE && lease[1] != OWN_ENDED && has(dead, lease[1]) -> lease[1] = NONE }
	/* Redis loses a lease and its attempt, and its leader lives. */
	:: atomic { lost_leases > 0 && lease[0] != NONE && lease[0] != OWN_ENDED && has(running, lease[0]) ->
		lost_leases--; deaths++; drop(flying[0], lease[0]); lease[0] = NONE }
	:: atomic { lease[0] == OWN_ENDED && !ENDLESS -> lease[0] = NONE }
	od
}

init {
	byte n;
	atomic {
		read_settings();
		lease[0] = (ENDED -> OWN_ENDED : NONE);
		for (n : 1 .. BATCHES) { run Batch(n) };
		n = 0;
		run World()
	}
}
