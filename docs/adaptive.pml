/*
 * A model of keys of an adaptive Group: a replica that does not know a key to be shared runs
 * its function without asking Redis.
 *
 * What a flight that asks does is in protocol.pml. Here it is no more than a lease, and nobody
 * dies. What is modelled is what a replica does that asks nobody: which functions may run
 * beside each other, and how a Forget reaches a flight of which Redis has nothing. What makes
 * a key hot is left open: it may become hot on any replica at any time, and any flight of a
 * cold key may ask.
 *
 *   proctype Replica  the callers of a replica, one after the other, and what it hears
 *   proctype Flight   a local flight
 *   proctype World    Forgets, keys that turn hot or cold, lost connections
 *
 * There is no clock. The settings are those of the environment, as in protocol.pml.
 */

#define MOST_REPLICAS 3

hidden byte REPLICAS = 2;
hidden byte CALLERS = 2;     /* of each replica */
hidden byte FORGETS;         /* by the first replica */
hidden byte COOLS;           /* how often a key turns cold on a replica */
hidden byte CUTS;            /* subscriptions that are lost, and made again */

hidden byte BREAK_HOT_KEY_NOT_ASKED, BREAK_NO_LOCAL_TIER, BREAK_JOIN_IGNORES_LEASE;
hidden byte BREAK_FORGET_TELLS_NOBODY, BREAK_RECONNECT_FORGETS_NOTHING;
hidden byte WITNESS_ALL_RUN, WITNESS_SHARED, WITNESS_FORGOTTEN, WITNESS_SETTLED;

#define setting(name) { char *value = getenv(#name); if (value) name = atoi(value); }

inline read_settings() {
	c_code {
		setting(REPLICAS) setting(CALLERS) setting(FORGETS) setting(COOLS) setting(CUTS)
		setting(BREAK_HOT_KEY_NOT_ASKED) setting(BREAK_NO_LOCAL_TIER) setting(BREAK_JOIN_IGNORES_LEASE)
		setting(BREAK_FORGET_TELLS_NOBODY) setting(BREAK_RECONNECT_FORGETS_NOTHING)
		setting(WITNESS_ALL_RUN) setting(WITNESS_SHARED) setting(WITNESS_FORGOTTEN) setting(WITNESS_SETTLED)
	};
	assert(REPLICAS <= MOST_REPLICAS);
	forgets = FORGETS; cools = COOLS; cuts = CUTS
}

/* Redis. */
byte lease;                  /* the flight that holds it, or 0 */
byte forgets, cools, cuts;

/* Each replica. */
byte joinable[MOST_REPLICAS];   /* the local flight that callers join, or 0 */
bool hot[MOST_REPLICAS];
bool hears[MOST_REPLICAS];      /* is subscribed */
bool told[MOST_REPLICAS];       /* a notice is on its way: the key was forgotten */
bool asked[MOST_REPLICAS];      /* the flight that callers join is one that asks */

/* What the properties alone know. */
byte running[MOST_REPLICAS];    /* functions */
byte leading;                   /* … with a lease */
byte unasked;                   /* flights that ask nobody and have not ended */
byte era;                       /* Forgets so far */
byte knows[MOST_REPLICAS];      /* … of which each replica has heard */
byte begun[MOST_REPLICAS];      /* … when the flight that callers join began */
bool split;                     /* a flight was taken for forgotten: another may run beside it */
bool settled;                   /* the key was hot on all replicas when no flight was left that asked nobody */

hidden byte P1_once_a_replica, P1_one_asks, P1_then_one, P4_forgotten_flight_not_joined;

#define verdict(name, claim) name = (claim); assert(name)
#define witness(name, event) assert(!(name && (event)))
#define all_hot (hot[0] && hot[1] && (REPLICAS == 2 || hot[2]))
#define all_run (running[0] + running[1] + running[2])

inline settle() {
	settled = settled || (all_hot && unasked == 0 && all_run <= 1 && !split);
	witness(WITNESS_SETTLED, settled)
}

/* What is begun before a Forget that the replica has heard of is joined no more. */
inline forget(r) {
	split = split || joinable[r] != 0;
	joinable[r] = 0
}

proctype Flight(byte r; bool asks) {
	byte leader;

	if
	:: !asks -> skip
	:: atomic { asks && (lease == 0 || BREAK_JOIN_IGNORES_LEASE) -> lease = _pid }
	:: atomic { asks && lease != 0 && !BREAK_JOIN_IGNORES_LEASE -> leader = lease; goto follows }
	fi;
	atomic {
		verdict(P1_once_a_replica, running[r] == 0 || split);
		verdict(P1_one_asks, !asks || leading == 0 || split);
		verdict(P1_then_one, !settled || all_run == 0 || split);
		running[r]++;
		leading = leading + asks;
		witness(WITNESS_ALL_RUN, all_run == REPLICAS && REPLICAS > 1)
	};
	atomic {
		running[r]--;
		leading = leading - asks;
		lease = (lease == _pid -> 0 : lease);
		goto ends
	};
follows:
	atomic {
		lease != leader ->
		witness(WITNESS_SHARED, true);
		leader = 0
	};
ends:
	atomic {
		joinable[r] = (joinable[r] == _pid -> 0 : joinable[r]);
		unasked = unasked - !asks;
		settle()
	}
}

proctype Replica(byte me) {
	byte callers = CALLERS;
	bool asks;

end:
	do
	:: atomic { callers > 0 ->
		callers--;
		if
		:: joinable[me] != 0 && !BREAK_NO_LOCAL_TIER ->
			/* One that asked is the business of protocol.pml. */
			verdict(P4_forgotten_flight_not_joined, asked[me] || begun[me] >= knows[me])
		:: else ->
			if
			:: asks = true
			:: (!hot[me] || BREAK_HOT_KEY_NOT_ASKED) && hears[me] -> asks = false
			fi;
			unasked = unasked + !asks;
			asked[me] = asks;
			begun[me] = era;
			joinable[me] = run Flight(me, asks)
		fi;
		asks = false }
	:: atomic { told[me] ->
		told[me] = false;
		witness(WITNESS_FORGOTTEN, joinable[me] != 0 && !asked[me]);
		knows[me] = era;
		if
		:: BREAK_FORGET_TELLS_NOBODY -> skip
		:: else -> forget(me)
		fi }
	od
}

proctype World() {
end:
	do
	/* A replica finds the key hot, or is told so. */
	:: atomic { !hot[0] -> hot[0] = true; settle() }
	:: atomic { !hot[1] -> hot[1] = true; settle() }
	:: atomic { REPLICAS > 2 && !hot[2] -> hot[2] = true; settle() }
	:: atomic { cools > 0 && hot[1] -> cools--; hot[1] = false; settled = false }
	/* The first replica forgets the key: the lease is dropped, and who asked nobody is told. */
	:: atomic { forgets > 0 ->
		forgets--;
		era++;
		split = split || lease != 0;
		lease = 0;
		knows[0] = era;
		forget(0);
		told[1] = told[1] || hears[1];
		told[2] = told[2] || (hears[2] && REPLICAS > 2) }
	/* A subscription is lost, with what was on its way; the replica learns that it was when it
	 * is there again. */
	:: atomic { cuts > 0 && hears[1] -> cuts--; hears[1] = false; told[1] = false }
	:: atomic { !hears[1] ->
		hears[1] = true;
		knows[1] = era;
		if
		:: BREAK_RECONNECT_FORGETS_NOTHING -> skip
		:: else -> forget(1)
		fi }
	od
}

init {
	byte n;
	atomic {
		read_settings();
		for (n : 0 .. REPLICAS - 1) { hears[n] = true; run Replica(n) };
		n = 0;
		run World()
	}
}
