/*
 * A model of how the replicas of a fleet agree on one flight per key.
 *
 * protocol.md tells the protocol in words; this file says it again, so that
 * spin can try every order in which its steps may happen. The model has one
 * key. The steps of Redis are those of coalesce/internal/protocol/lua, one
 * inline each, and atomic as they are. Between a script's run in Redis and the moment
 * its caller reads the reply, anything may happen.
 *
 *   proctype Caller    a caller of Do, and the flight it starts when the local
 *                      tier has none (joining.go, leading.go, following.go)
 *   proctype Replica   a replica's subscription loop (pubsub)
 *   proctype World     time, and what goes wrong: leases that run out or vanish,
 *                      leaders that stop or die, a Redis that hangs, commands that
 *                      arrive late
 *   proctype Forgetter a caller of Forget (forget.go)
 *
 * There is no clock. A lease can run out as soon as nobody renews it, and never
 * has to: that covers every length of a lease and every speed of a replica.
 * Times are an order of events: what had ended when somebody came, or joined.
 *
 * The verifier takes its settings from the environment, so that one build of it
 * does for all: sizes, what may go wrong, and how often. A BREAK_ setting takes
 * one thing out of the protocol, to show that the properties notice; a WITNESS_
 * setting claims that something interesting never happens.
 *
 *   spin -a protocol.pml && gcc -O1 -DSAFETY -DCOLLAPSE -o pan pan.c
 *   CALLERS=3 CRASHES=1 ./pan -m20000          search
 *   CALLERS=3 CRASHES=1 ./pan -r               the order of events that it found
 */

#define MOST_CALLERS  3
#define MOST_REPLICAS 3
#define MOST_FORGETS  2

hidden byte CALLERS = 3;     /* calls of Do; each may lead one flight, which has its number */
hidden byte REPLICAS = 2;
hidden byte ATTEMPTS = 3;    /* MaxTakeovers + 1 */
hidden byte APART;           /* 1: each caller comes to a replica of its own */
hidden byte TOGETHER;        /* 1: all callers come to the first replica, and all Forgets to the last */
hidden byte FACING;          /* 1: the first caller and all Forgets come to the last replica, the other callers to the first */
hidden byte HOT;             /* 1: every replica is subscribed already */
hidden byte LARGE;           /* 1: messages are notices; outcomes are fetched */
hidden byte ENDLESS;         /* 1: a function returns only when it is cancelled */
hidden byte LEASE_TIMER = 1; /* 0: followers never look for themselves when a lease has run out */
hidden byte THAWS = 1;       /* 0: a Redis that hangs does so for ever */

/* How often each thing may go wrong. */
hidden byte CRASHES;         /* replicas that die */
hidden byte STOPS;           /* leaders that are stopped, or cannot renew, for longer than their lease */
hidden byte VANISHES;        /* leases that Redis drops before they are due */
hidden byte FLUSHES;         /* Redis loses everything, or all strikes */
hidden byte HANGS;           /* Redis answers nobody, for as long as it takes */
hidden byte LOSSES;          /* messages that do not arrive, without a sign of it */
hidden byte LOST_NOTICES;    /* the same of notices of a Forget on the key's channel */
hidden byte FAILURES;        /* commands that fail: before Redis ran them, or after */
hidden byte LATE_JOINS;      /* joins that fail, and which Redis runs later all the same */
hidden byte LATE_FINISHES;   /* the same of finish */
hidden byte LATE_RENEWALS;   /* the same of renew */
hidden byte EARLY;           /* outcomes that seem to have ended earlier than they did */
hidden byte LEAVERS;         /* local callers that leave, the last of their flight */
hidden byte SHUTDOWNS;       /* leaders that give up though somebody waits */
hidden byte RECONNECTS;      /* subscription connections that break */
hidden byte FORGETS;         /* calls of Forget, on any replica */
hidden byte ALIVE;           /* renewals that tell the followers that the flight lives */
hidden byte EXPIRIES;        /* outcomes that outlive the hand-off TTL */

hidden byte BREAK_JOIN_IGNORES_LEASE, BREAK_JOIN_LEAVES_NO_MARK, BREAK_JOIN_COMES_AFTER_ABANDON;
hidden byte BREAK_DEATHS_NOT_COUNTED, BREAK_VANISHED_LEASE_COUNTS, BREAK_FINISH_CLEARS_FOREIGN_STRIKES;
hidden byte BREAK_FINISH_CLEARS_LIVING_STRIKES, BREAK_LOST_FINISH_LEAVES_STRIKE, BREAK_ABANDON_LEAVES_STRIKE;
hidden byte BREAK_NO_RENEWAL, BREAK_RENEW_FORGETS_DETACHED, BREAK_RENEW_MOVES_NO_STRIKE;
hidden byte BREAK_RENEW_TAKES_WITHOUT_STRIKE, BREAK_RENEW_TAKES_FOREIGN_LEASE, BREAK_RENEW_DETACHES_NOTHING;
hidden byte BREAK_PEEK_IGNORES_STRIKE, BREAK_FINISH_DELETES_FOREIGN_LEASE;
hidden byte BREAK_UNSURE_FINISHES, BREAK_ABANDON_SAYS_NOTHING, BREAK_ABANDON_GIVEN_UP_WHILE_DOWN;
hidden byte BREAK_LEAVE_NOT_SENT, BREAK_REPEATED_LEAVE_COUNTS, BREAK_LEADER_ASKS_ONCE, BREAK_WAITS_FOR_DOWN_SERVER;
hidden byte BREAK_FORGET_DETACHES_NOTHING, BREAK_FORGET_KEEPS_LEASE;
hidden byte BREAK_FORGET_TELLS_NO_LEADER, BREAK_FORGET_TELLS_NO_FOLLOWER, BREAK_FORGET_SKIPS_DUE;
hidden byte BREAK_FORGET_SILENT_WITHOUT_LEADER;
hidden byte BREAK_RECONNECT_ASKS_NOTHING, BREAK_RECONNECT_SKIPS_JOINS, BREAK_RECONNECT_FORGETS_ALL;
hidden byte BREAK_PEEK_TELLS_NO_FORGET, BREAK_LOST_KEEPS_LOCAL_FLIGHT;
hidden byte BREAK_ALIVE_TELLS_NO_FORGET, BREAK_ALIVE_STOPS_LEASE_TIMER;
hidden byte BREAK_ASK_IGNORES_MARK, BREAK_STORE_NOT_RENEWED, BREAK_NOTICE_BEFORE_PIECES;
hidden byte BREAK_LOCAL_TIER_IGNORES_AGE, BREAK_MESSAGE_IGNORES_AGE, BREAK_FETCH_IGNORES_AGE;
hidden byte BREAK_TAKES_ANY_MESSAGE, BREAK_SUBSCRIBE_WITHOUT_PEEK;

hidden byte WITNESS_TAKEOVER, WITNESS_POISONED, WITNESS_FETCHED, WITNESS_ABANDONED, WITNESS_LATE_OUTCOME;
hidden byte WITNESS_JOIN_TOO_LATE, WITNESS_RETAKEN, WITNESS_LOST_TO_ANOTHER, WITNESS_ASKED_AGAIN;
hidden byte WITNESS_TOO_OLD, WITNESS_MISSED_FORGET, WITNESS_FALLBACK;
hidden byte WITNESS_ALIVE, WITNESS_RELEASED_UNSTORED, WITNESS_PIECES_GONE;

#define setting(name) { char *value = getenv(#name); if (value) name = atoi(value); }

inline read_settings() {
	c_code {
		setting(CALLERS) setting(REPLICAS) setting(ATTEMPTS) setting(APART) setting(TOGETHER) setting(FACING) setting(HOT)
		setting(LARGE) setting(ENDLESS) setting(LEASE_TIMER) setting(THAWS) setting(CRASHES) setting(STOPS)
		setting(VANISHES) setting(FLUSHES) setting(HANGS) setting(LOSSES) setting(FAILURES) setting(LATE_JOINS)
		setting(LATE_FINISHES) setting(LATE_RENEWALS) setting(EARLY) setting(LEAVERS) setting(SHUTDOWNS)
		setting(RECONNECTS) setting(FORGETS) setting(EXPIRIES) setting(ALIVE) setting(LOST_NOTICES) setting(BREAK_JOIN_IGNORES_LEASE)
		setting(BREAK_JOIN_LEAVES_NO_MARK) setting(BREAK_JOIN_COMES_AFTER_ABANDON)
		setting(BREAK_DEATHS_NOT_COUNTED) setting(BREAK_VANISHED_LEASE_COUNTS)
		setting(BREAK_FINISH_CLEARS_FOREIGN_STRIKES) setting(BREAK_FINISH_CLEARS_LIVING_STRIKES)
		setting(BREAK_LOST_FINISH_LEAVES_STRIKE) setting(BREAK_ABANDON_LEAVES_STRIKE) setting(BREAK_NO_RENEWAL)
		setting(BREAK_RENEW_FORGETS_DETACHED) setting(BREAK_RENEW_MOVES_NO_STRIKE)
		setting(BREAK_RENEW_TAKES_WITHOUT_STRIKE) setting(BREAK_RENEW_TAKES_FOREIGN_LEASE)
		setting(BREAK_RENEW_DETACHES_NOTHING) setting(BREAK_PEEK_IGNORES_STRIKE)
		setting(BREAK_FINISH_DELETES_FOREIGN_LEASE) setting(BREAK_UNSURE_FINISHES)
		setting(BREAK_ABANDON_SAYS_NOTHING) setting(BREAK_ABANDON_GIVEN_UP_WHILE_DOWN)
		setting(BREAK_LEAVE_NOT_SENT) setting(BREAK_REPEATED_LEAVE_COUNTS) setting(BREAK_LEADER_ASKS_ONCE)
		setting(BREAK_WAITS_FOR_DOWN_SERVER) setting(BREAK_FORGET_DETACHES_NOTHING)
		setting(BREAK_FORGET_KEEPS_LEASE) setting(BREAK_FORGET_TELLS_NO_LEADER)
		setting(BREAK_FORGET_TELLS_NO_FOLLOWER) setting(BREAK_FORGET_SKIPS_DUE)
		setting(BREAK_FORGET_SILENT_WITHOUT_LEADER) setting(BREAK_RECONNECT_ASKS_NOTHING)
		setting(BREAK_RECONNECT_SKIPS_JOINS) setting(BREAK_RECONNECT_FORGETS_ALL)
		setting(BREAK_PEEK_TELLS_NO_FORGET) setting(BREAK_LOST_KEEPS_LOCAL_FLIGHT)
		setting(BREAK_ALIVE_TELLS_NO_FORGET) setting(BREAK_ALIVE_STOPS_LEASE_TIMER)
		setting(BREAK_ASK_IGNORES_MARK) setting(BREAK_STORE_NOT_RENEWED)
		setting(BREAK_NOTICE_BEFORE_PIECES) setting(BREAK_LOCAL_TIER_IGNORES_AGE)
		setting(BREAK_MESSAGE_IGNORES_AGE) setting(BREAK_FETCH_IGNORES_AGE) setting(BREAK_TAKES_ANY_MESSAGE)
		setting(BREAK_SUBSCRIBE_WITHOUT_PEEK) setting(WITNESS_TAKEOVER) setting(WITNESS_POISONED)
		setting(WITNESS_FETCHED) setting(WITNESS_ABANDONED) setting(WITNESS_LATE_OUTCOME)
		setting(WITNESS_JOIN_TOO_LATE) setting(WITNESS_RETAKEN) setting(WITNESS_LOST_TO_ANOTHER)
		setting(WITNESS_ASKED_AGAIN) setting(WITNESS_TOO_OLD) setting(WITNESS_MISSED_FORGET)
		setting(WITNESS_FALLBACK) setting(WITNESS_ALIVE) setting(WITNESS_RELEASED_UNSTORED)
		setting(WITNESS_PIECES_GONE)
	};
	assert(CALLERS <= MOST_CALLERS && REPLICAS <= MOST_REPLICAS && FORGETS <= MOST_FORGETS);
	assert(!APART || CALLERS <= REPLICAS);
	crashes = CRASHES; stops = STOPS; vanishes = VANISHES; flushes = FLUSHES; hangs = HANGS;
	losses = LOSSES; failures = FAILURES; late_joins = LATE_JOINS;
	late_finishes = LATE_FINISHES; late_renewals = LATE_RENEWALS; early = EARLY;
	leavers = LEAVERS; shutdowns = SHUTDOWNS; reconnects = RECONNECTS; expiries = EXPIRIES;
	alive_messages = ALIVE; lost_notices = LOST_NOTICES
}

#define NONE 0
#define MANY 9
#define bit(i)       (1 << (i))
#define has(set, i)  (((set) & bit(i)) != 0)
#define add(set, i)  set = set | bit(i)
#define drop(set, i) set = set & ~bit(i)
#define size(set)    (has(set, 1) + has(set, 2) + has(set, 3)) /* none has 0 in it */

/* Words of the scripts' replies, kinds of messages, states of a subscription,
 * and how a call came by its answer. */
mtype = { lead, follow, poisoned, too_late, done, running_, gone };
mtype = { value, notice, abandoned, alive, alive_forgotten, confirmation, control_confirmation, forgotten, forgotten_by_leader };
mtype = { cold, asked, confirmed };
mtype = { answered_, failed };

/* ------------------------------------------------------------------ Redis */

byte lease;            /* the flight that holds it, or NONE */
byte detached;         /* set of attempts that were forgotten, or have lost their lease, and are not due: no strikes */
byte marked;           /* set of flights that somebody has joined, with a lease or detached */
byte count[MOST_CALLERS + 1]; /* how many have joined, and not left; MANY: not known */
byte strikes;          /* set of the other attempts */
byte due;              /* those of them whose lease was due by now */
byte over;             /* set of flights given up whose join is yet to come */
byte stored;           /* set of flights whose result key exists */
byte pieces;           /* set of flights whose large outcome is stored */
byte subscribed;       /* set of replicas that Redis publishes the channel to */
byte control;          /* set of replicas that are subscribed to their own control channel */
byte forgets;          /* how often Forget was called */
bool frozen;           /* Redis answers nobody */

/* Messages on their way to each replica's subscription loop, in order. */
chan wire[MOST_REPLICAS] = [6] of { mtype, byte };

/* --------------------------------------------------------------- replicas */

byte at[MOST_REPLICAS];          /* sets of callers, by the replica they come to */
byte next_caller = 1;       /* callers come in the order of their numbers */
byte dead;                  /* set of replicas */
byte local_flight[MOST_REPLICAS];/* the local tier's map: the call that callers join, or NONE */
mtype subscription[MOST_REPLICAS] = cold;
byte waiting;               /* set of calls that have a waiter on the channel */
byte missed;                /* set of calls whose waiter was told to peek */
byte heard_value[MOST_CALLERS + 1], heard_notice[MOST_CALLERS + 1], heard_abandoned[MOST_CALLERS + 1];
                            /* by call: the flights whose message its waiter holds */
byte finishing;             /* set of flights whose finish is on its way */
byte renewing;              /* set of flights whose leader renews in time, or finishes in time */
byte fallback;              /* set of flights whose function runs without a lease */
byte listening;             /* set of those of them that hear of a Forget */
byte joins;                 /* set of calls whose join is on its way, or its reply */
byte leads;                 /* set of calls whose function runs with a lease, or has run, and was not shared yet */
byte asks;                  /* set of them that are to ask Redis whether they were forgotten */
byte caught_up;             /* set of replicas whose control channel is confirmed, and that have seen to its leaders */
byte heard_alive[MOST_CALLERS + 1], heard_alive_forgotten[MOST_CALLERS + 1];

/* How each local flight ended, for the callers that joined it. */
byte ended_calls;
byte answer_flight[MOST_CALLERS + 1];
mtype answer_how[MOST_CALLERS + 1];
byte local_waiters[MOST_CALLERS + 1];

/* ------------------------------- what the properties, and they alone, know */

byte ended;            /* set of flights whose function has returned */
byte running;          /* set of flights whose function runs, of those that others may wait for */
byte granted;          /* set of flights whose lease has not been lost, given back or forgotten */
byte begun;            /* set of flights whose function runs or has run, or which hold the lease */
byte overdue;          /* set of flights that Redis has not heard of in time, though their leader lives */
byte shared;           /* set of flights whose finish Redis has run */
byte late;             /* set of flights whose finish came while another led; for its witness */
byte victims;          /* leaders that died since an outcome was shared */
byte lost_leases;      /* set of flights that were told that Redis has lost their lease */
byte storing;          /* set of flights whose large outcome is being stored */
byte heard_of[MOST_REPLICAS];      /* set of the Forgets that this replica knows of, or should */
byte unheard[MOST_REPLICAS];       /* set of those that it has missed, or is about to learn of */
byte notice_lost[MOST_REPLICAS];   /* set of those whose notice was lost without a sign */
byte begun_before[MOST_FORGETS + 1]; /* by the number of a Forget: flights that it has reached */
byte ever_forgotten;   /* set of flights begun before any Forget */
byte strays[MOST_FORGETS + 1];     /* flights begun before it of which Redis had nothing */

/* What may go wrong still. */
byte crashes, stops, vanishes, flushes, hangs, losses, failures, early;
byte late_joins, late_finishes, late_renewals;
byte leavers, shutdowns, reconnects, expiries, alive_messages, lost_notices;
byte late_join, late_finish, late_renew; /* sets of flights with such a command still on its way */

/* The verdicts. Spin names the one that a trail ends with. */
hidden byte P2_outcome_found;
hidden byte P1_one_flight, P1_flight_kept_while_renewed, P1_vacant_lease_taken_again;
hidden byte P3_joined_that_flight, P3_not_stale;
hidden byte P4_forgotten_flight_not_joined, P4_nothing_forgotten_unless_missed;
hidden byte P6_attempts_bounded, P6_only_deaths_count;
hidden byte queue_long_enough;
hidden byte i, was_marked, was_detached, told, published, attempts;

/* The flights begun before any of these Forgets. */
#define before_forgets(set) ((has(set, 1) -> begun_before[1] : 0) | (has(set, 2) -> begun_before[2] : 0))

/* Only Forget asks what has begun. */
#define begins(flight) begun = begun | (FORGETS > 0 -> bit(flight) : 0)

#define deceased ((has(dead, 0) -> at[0] : 0) | (has(dead, 1) -> at[1] : 0) | (has(dead, 2) -> at[2] : 0))

#define verdict(name, claim) name = (claim); assert(name)
#define witness(name, event) assert(!(name && (event)))

/* ---------------------------------------------------------------- scripts */

/* PUBLISH on the key's channel. A message to a replica where nobody waits is
 * left out: whoever waits there later follows a flight that holds the lease
 * then, and that a flight that is over cannot, but for a command that is late. */
inline publish(kind, flight) {
	for (i : 0 .. REPLICAS - 1) {
		if
		:: has(subscribed, i) && (LATE_JOINS + LATE_RENEWALS > 0 || (waiting & at[i]) != 0) ->
			verdict(queue_long_enough, nfull(wire[i]));
			wire[i]!kind, flight
		:: else
		fi
	};
	i = 0
}

/* The lease and the detached lease of a flight are no more. */
inline release(flight) {
	if
	:: lease == flight -> lease = NONE
	:: else
	fi;
	drop(detached, flight);
	drop(marked, flight);
	drop(granted, flight);
	count[flight] = 0
}

inline remove_strike(flight) {
	drop(strikes, flight);
	drop(due, flight)
}

/* Who joined is not known. */
inline mark_unknown(flight) {
	add(marked, flight);
	count[flight] = (LEAVERS > 0 -> MANY : 0)
}

#define deaths (BREAK_VANISHED_LEASE_COUNTS -> strikes : strikes & due)

/* join.lua, without MaxAge. */
inline join_script(flight, reply, holder) {
	if
	:: lease != NONE && lease != flight && (!BREAK_JOIN_IGNORES_LEASE || has(marked, lease)) ->
		holder = lease;
		marked = marked | (BREAK_JOIN_LEAVES_NO_MARK -> 0 : bit(lease));
		count[lease] = (LEAVERS > 0 && count[lease] < MANY -> count[lease] + 1 : count[lease]);
		reply = follow
	:: lease == flight ->
		reply = lead
	:: lease == NONE && has(over, flight) && !BREAK_JOIN_COMES_AFTER_ABANDON ->
		reply = too_late
	:: else ->
		if
		:: size(deaths) >= ATTEMPTS && !BREAK_DEATHS_NOT_COUNTED ->
			verdict(P6_only_deaths_count, (deaths & ~(deceased | overdue)) == 0);
			reply = poisoned
		:: else ->
			verdict(P1_one_flight, granted == 0);
			lease = flight;
			drop(marked, flight);
			add(strikes, flight);
			drop(due, flight);
			add(granted, flight);
			begins(flight);
			reply = lead
		fi
	fi
}

/* leave.lua. A repeated leave does nothing. */
inline leave_script(flight) {
	if
	:: count[flight] > 0 && count[flight] < MANY ->
		count[flight]--;
		if
		:: count[flight] == 0 -> drop(marked, flight)
		:: else
		fi
	:: else
	fi
}

/* A flight whose lease vanished before it was due has its strike still. */
#define lives(flight) (lease == flight || has(detached, flight) || \
	(has(strikes & ~due, flight) && !BREAK_PEEK_IGNORES_STRIKE))

/* peek.lua */
inline peek_script(flight, reply) {
	if
	:: has(stored, flight) -> reply = done
	:: else ->
		if
		:: lives(flight) -> reply = running_
		:: else -> reply = gone
		fi
	fi
}

/* renew.lua. A flight that is over, or forgotten, has no strike. One of which Redis has
 * nothing is lost: it stands among the attempts from now on, and a Forget reaches it. */
inline renew_script(flight) {
	for (i : 1 .. FORGETS) {
		begun_before[i] = begun_before[i] | (strays[i] & bit(flight));
		drop(strays[i], flight)
	};
	i = 0;
	if
	:: has(over, flight)
	:: lease == flight ->
		add(strikes, flight);
		drop(due, flight)
	:: (lease == NONE || BREAK_RENEW_TAKES_FOREIGN_LEASE) && lease != flight && !has(over, flight) &&
			(has(strikes, flight) || BREAK_RENEW_TAKES_WITHOUT_STRIKE) ->
		witness(WITNESS_RETAKEN, true);
		verdict(P1_one_flight, granted == 0);
		release(flight);
		lease = flight;
		mark_unknown(flight);
		add(strikes, flight);
		drop(due, flight);
		add(granted, flight)
	:: else ->
		verdict(P1_vacant_lease_taken_again, lease != NONE || !has(running & ~overdue & ~detached, flight) ||
			has(ever_forgotten, flight) || flushes != FLUSHES);
		if
		:: has(strikes, flight) ->
			/* Another flight has the lease; the key was not forgotten since this one began. */
			witness(WITNESS_LOST_TO_ANOTHER, true);
			due = (BREAK_RENEW_MOVES_NO_STRIKE -> due : due & ~bit(flight));
			mark_unknown(flight)
		:: has(detached, flight) && BREAK_RENEW_FORGETS_DETACHED -> release(flight)
		:: !has(strikes | detached, flight) && !BREAK_RENEW_DETACHES_NOTHING ->
			add(detached, flight);
			lost_leases = lost_leases | (FORGETS > 0 -> bit(flight) : 0);
			mark_unknown(flight)
		:: else
		fi
	fi
}

/* Whether a renewal changes anything: one in time, of who has its lease, does not. */
#define renewal_counts(flight) (!has(renewing, flight) || has(asks, flight) || \
	(has(detached, flight) && local_flight[r] == flight) || (alive_messages > 0 && has(marked, flight)) || \
	(lease != flight && (!has(detached | strikes, flight) || (has(strikes, flight) && (lease == NONE || !has(marked, flight))))) || \
	BREAK_RENEW_FORGETS_DETACHED || BREAK_RENEW_TAKES_WITHOUT_STRIKE)

/* finish.lua, without MaxAge. */
inline finish_script(flight, kind) {
	was_marked = true;
	if
	:: lease == flight || (BREAK_FINISH_DELETES_FOREIGN_LEASE && lease != NONE) ->
		was_marked = has(marked, flight);
		lease = NONE;
		/* Deaths are forgotten; who lives keeps its strike. */
		strikes = strikes & ~(BREAK_FINISH_CLEARS_LIVING_STRIKES -> 255 : due);
		due = 0
	:: else ->
		was_marked = !has(detached, flight) || has(marked, flight);
		late = late | (WITNESS_LATE_OUTCOME && lease != NONE -> bit(flight) : 0);
		if
		:: BREAK_FINISH_CLEARS_FOREIGN_STRIKES -> strikes = 0; due = 0
		:: else
		fi
	fi;
	release(flight);
	if
	:: lease == NONE || !BREAK_LOST_FINISH_LEAVES_STRIKE -> remove_strike(flight)
	:: else
	fi;
	drop(overdue, flight);
	drop(storing, flight);
	if
	:: CRASHES > 0 && !has(shared, flight) -> add(shared, flight); victims = 0
	:: else
	fi;
	if
	:: was_marked ->
		add(stored, flight);
		publish(kind, flight)
	:: else
	fi
}

/* abandon.lua. That the join comes too late is kept only where one is on its way. */
inline abandon_script(flight, forced, given_up) {
	given_up = forced || !has(marked, flight);
	if
	:: given_up ->
		drop(running, flight); /* nobody waits for the function: its context has ended, or does now */
		was_marked = has(marked, flight);
		if
		:: lease != flight && !has(detached, flight) ->
			was_marked = true;
			over = over | ((late_join | late_renew) & bit(flight))
		:: else
		fi;
		release(flight);
		drop(overdue, flight);
		if
		:: !BREAK_ABANDON_LEAVES_STRIKE -> remove_strike(flight)
		:: else
		fi;
		if
		:: was_marked && !BREAK_ABANDON_SAYS_NOTHING -> publish(abandoned, flight)
		:: else
		fi
	:: else
	fi
}

/* What a replica may still learn by itself of a Forget that it was not told of: a join
 * is on its way, a follower is yet to look, a leader is yet to ask. */
#define learns(r) (((joins & ~waiting) | (waiting & missed) | asks | \
	(subscription[r] == confirmed -> 0 : waiting)) & at[r])

/* A replica knows of the Forgets that it has missed once it has nothing more to learn. A
 * flight in fallback is not split by a Forget that was missed. */
inline settle(r) {
	if
	:: unheard[r] != 0 && has(caught_up, r) && learns(r) == 0 ->
		for (i : 1 .. FORGETS) {
			if
			:: has(unheard[r], i) ->
				begun_before[i] = begun_before[i] & ~(fallback & at[r]);
				add(heard_of[r], i)
			:: else
			fi
		};
		i = 0;
		unheard[r] = 0
	:: else
	fi
}

/* forget.lua, sent by replica r. The leaders of all attempts are told, those too that
 * are due, and whoever is subscribed to the key's channel. A flight whose lease vanished
 * is forgotten, too. */
inline forget_script() {
	forgets++;
	told = detached | (strikes & (BREAK_FORGET_SKIPS_DUE -> ~due : 255)) | (lease == NONE -> 0 : bit(lease));
	published = !BREAK_FORGET_TELLS_NO_FOLLOWER && (told != 0 || !BREAK_FORGET_SILENT_WITHOUT_LEADER);
	attempts = detached | strikes | (lease == NONE -> 0 : bit(lease));
	ever_forgotten = ever_forgotten | begun;
	strays[forgets] = begun & ~ended & ~fallback & ~attempts;
	begun_before[forgets] = begun & ~strays[forgets];
	if
	:: !BREAK_FORGET_DETACHES_NOTHING ->
		for (i : 1 .. CALLERS) {
			if
			:: i != lease && !has(detached, i) && has(strikes & ~due, i) -> mark_unknown(i)
			:: else
			fi
		};
		detached = detached | (strikes & ~due) | (lease == NONE -> 0 : bit(lease))
	:: else
	fi;
	if
	:: lease != NONE && !BREAK_FORGET_KEEPS_LEASE ->
		drop(granted, lease);
		lease = NONE
	:: else
	fi;
	strikes = 0;
	due = 0;
	victims = 0;
	for (i : 0 .. REPLICAS - 1) {
		if
		:: has(dead, i) || i == r
		:: !has(dead, i) && i != r ->
			/* A flight in fallback that is not subscribed yet misses it. */
			begun_before[forgets] = begun_before[forgets] & ~(has(subscribed, i) -> 0 : fallback & at[i]);
			if
			:: has(control, i) && (told & at[i]) != 0 && !BREAK_FORGET_TELLS_NO_LEADER ->
				verdict(queue_long_enough, nfull(wire[i]));
				wire[i]!forgotten_by_leader, forgets
			:: has(subscribed, i) && published && !(has(control, i) && (told & at[i]) != 0 && !BREAK_FORGET_TELLS_NO_LEADER) ->
				verdict(queue_long_enough, nfull(wire[i]));
				wire[i]!forgotten, forgets
			:: else ->
				if
				:: has(caught_up, i) && learns(i) == 0 -> add(heard_of[i], forgets)
				:: else -> add(unheard[i], forgets)
				fi
			fi
		fi
	};
	told = 0; published = 0; attempts = 0;
	i = 0
}

/* ------------------------------------------------------------- one caller */

/* Callers that come from now on do not join this call, which was forgotten. Nothing else is
 * forgotten but what has lost its lease: nobody can tell any more whether it was forgotten. */
inline forget_local(call, flight) {
	if
	:: local_flight[r] == call ->
		verdict(P4_nothing_forgotten_unless_missed, FORGETS == 0 || has(lost_leases, flight) ||
			has(ever_forgotten, flight));
		local_flight[r] = NONE
	:: else
	fi
}

/* take empties the waiter's messages. */
inline empty_waiter() {
	heard_alive[me] = 0;
	heard_alive_forgotten[me] = 0;
	heard_value[me] = 0;
	heard_notice[me] = 0;
	heard_abandoned[me] = 0;
	drop(missed, me)
}

/* The last moment of a local flight: its waiter goes, the local tier's map
 * loses it, and those who wait in the local tier are woken. In Go these are
 * three steps, in this order, with no wait between them; a caller that comes
 * between them joins a flight that counts as running still. */
inline end_call(flight, how) {
	drop(waiting, me);
	drop(listening, me);
	drop(asks, me);
	drop(leads, me);
	empty_waiter();
	if
	:: local_flight[r] == me -> local_flight[r] = NONE
	:: else
	fi;
	settle(r);
	if
	:: local_waiters[me] > 0 ->
		add(ended_calls, me);
		answer_flight[me] = flight;
		answer_how[me] = how
	:: else
	fi;
	forget_call()
}

/* What no later step reads is set to zero, so that states that differ in
 * nothing else are one. */
inline forget_call() {
	came_after = 0;
	came_after_forget = 0;
	joined_after = 0;
	leader = NONE;
	reply = 0
}

/* What a caller may take: nothing that had ended when it came, nor what had been
 * forgotten. */
inline check_answer(flight) {
	verdict(P3_not_stale, !has(came_after, flight));
	verdict(P4_forgotten_flight_not_joined, !has(came_after_forget, flight))
}

#define can_abandon (!frozen || BREAK_ABANDON_GIVEN_UP_WHILE_DOWN)

/* One try to give up a flight that nobody knows whether Redis has. It is the
 * last when Redis has taken it, or the time for it is over, which it is not
 * while Redis hangs. */
inline insist_on_abandon() {
	if
	:: !frozen -> abandon_script(me, true, given_up); unsure = false
	:: !frozen && failures > 0 -> failures--; abandon_script(me, true, given_up)
	:: !frozen && failures > 0 -> failures--
	:: !frozen && failures > 0 -> failures--; unsure = false
	:: frozen && BREAK_ABANDON_GIVEN_UP_WHILE_DOWN -> unsure = false; drop(overdue, me)
	fi;
	given_up = false
}

/* Redis may have taken the flight's join, or may yet, and nobody renews it. */
inline is_unsure() {
	unsure = true;
	add(overdue, me)
}

/* A leader's renewal tells those who joined it that it lives, and the leader whether it
 * was forgotten. A flight that has lost its lease may have been. */
inline renews() {
	was_detached = has(detached, me);
	renew_script(me);
	add(renewing, me);
	drop(overdue, me);
	if
	:: has(detached, me) && (was_detached || !BREAK_LOST_KEEPS_LOCAL_FLIGHT) ->
		witness(WITNESS_MISSED_FORGET, has(asks, me) && !has(lost_leases, me) && local_flight[r] == me);
		forget_local(me, me)
	:: else
	fi;
	drop(asks, me);
	settle(r);
	if
	:: alive_messages > 0 && has(marked, me) ->
		alive_messages--;
		publish((has(detached, me) -> alive_forgotten : alive), me)
	:: else
	fi
}

/* A local follower has its answer; the last one forgets it. */
inline local_follower_leaves() {
	local_waiters[leader]--;
	if
	:: local_waiters[leader] == 0 && has(ended_calls, leader) ->
		drop(ended_calls, leader);
		answer_flight[leader] = NONE;
		answer_how[leader] = 0
	:: else
	fi;
	leader = NONE
}

/* A caller of Do and, if it starts a local flight, that flight's call: the
 * labels are its states in coalesce/distributed. */
proctype Caller(byte me; byte r) {
	byte came_after, came_after_forget; /* flights, when the caller came */
	byte joined_after;     /* flights that had ended when Redis ran the join */
	byte leader;           /* the flight that is followed */
	byte flight;           /* the one that it has left */
	mtype reply;
	bool lost, unsure, leased, left, given_up, again, rested;

	{
	atomic {
		next_caller == me -> next_caller++;
		settle(r);
		came_after = ended;
		came_after_forget = before_forgets(heard_of[r]);
	local_tier: /* Do: joins the local flight, or starts one */
		if
		:: local_flight[r] != NONE ->
			leader = local_flight[r];
			local_waiters[leader]++
		:: else ->
			local_flight[r] = me;
			goto joining
		fi
	};
	if
	:: atomic { has(ended_calls, leader) ->
		if
		:: answer_how[leader] != failed && has(came_after, answer_flight[leader]) &&
				!BREAK_LOCAL_TIER_IGNORES_AGE ->
			local_follower_leaves();
			goto local_tier
		:: else ->
			if
			:: answer_how[leader] != failed -> check_answer(answer_flight[leader])
			:: else
			fi;
			local_follower_leaves();
			forget_call();
			goto answered
		fi }
	:: atomic { ENDLESS && leavers > 0 ->
		leavers--;
		local_follower_leaves();
		forget_call();
		goto answered }
	fi;

joining:
	atomic {
		leader = NONE;
		joins = joins | (FORGETS > 0 -> bit(me) : 0);
		if
		:: !has(waiting, me) && subscription[r] == confirmed -> add(waiting, me)
		:: else
		fi
	};
	if
	:: atomic { !frozen ->
		d_step {
			join_script(me, reply, leader);
			joined_after = (reply == follow -> ended : 0)
		};
		if
		:: reply == lead -> add(renewing, me)
		:: else
		fi }
	:: atomic { !frozen && failures > 0 -> failures--; is_unsure(); goto alone }
	:: atomic { !frozen && failures > 0 -> failures--;
		d_step { join_script(me, reply, leader) };
		is_unsure();
		goto alone }
	:: atomic { late_joins > 0 -> late_joins--; add(late_join, me); is_unsure(); goto alone }
	:: atomic { frozen -> is_unsure(); goto alone }
	:: atomic { frozen -> goto alone } /* not sent */
	fi;
	if
	:: atomic { reply == lead -> goto leading }
	:: atomic { reply == poisoned ->
		witness(WITNESS_POISONED, true);
		drop(joins, me);
		end_call(NONE, failed);
		goto answered }
	:: atomic { reply == follow -> reply = 0 }
	fi;

	/* following */
	atomic {
		drop(joins, me);
		drop(asks, me);
		if
		:: !has(waiting, me) ->
			add(waiting, me);
			if
			:: subscription[r] == confirmed -> add(missed, me)
			:: subscription[r] == cold -> subscription[r] = asked
			:: else
			fi
		:: else
		fi
	};
waits:
	if
	:: atomic { has(heard_value[me], leader) ->
		if
		:: has(joined_after, leader) && !BREAK_MESSAGE_IGNORES_AGE ->
			witness(WITNESS_TOO_OLD, true);
			empty_waiter();
			goto joining
		:: early > 0 -> early--; empty_waiter(); goto joining
		:: else
		fi;
		witness(WITNESS_LATE_OUTCOME, has(late, leader));
		check_answer(leader);
		end_call(leader, answered_);
		goto answered }
	:: atomic { BREAK_TAKES_ANY_MESSAGE && heard_value[me] != 0 && !has(heard_value[me], leader) ->
		verdict(P3_joined_that_flight, false) }
	:: atomic { has(heard_abandoned[me], leader) ->
		witness(WITNESS_ABANDONED, true);
		empty_waiter();
		lost = true;
		goto joining }
	:: atomic { has(heard_notice[me], leader) || has(missed, me) -> goto peeks }
	/* A message that says that the flight lives: no look is needed until a lease TTL later. */
	:: atomic { (heard_alive[me] | heard_alive_forgotten[me]) != 0 ->
		witness(WITNESS_ALIVE, true);
		if
		:: has(heard_alive_forgotten[me], leader) ->
			heard_of[r] = heard_of[r] | notice_lost[r];
			notice_lost[r] = 0;
			if
			:: !BREAK_ALIVE_TELLS_NO_FORGET -> forget_local(me, leader)
			:: else
			fi
		:: else
		fi;
		rested = has(heard_alive[me] | heard_alive_forgotten[me], leader);
		heard_alive[me] = 0;
		heard_alive_forgotten[me] = 0;
		goto waits }
	:: atomic { rested && !BREAK_ALIVE_STOPS_LEASE_TIMER -> rested = false; goto waits }
	:: atomic { LEASE_TIMER && !frozen && !lives(leader) && !rested -> goto peeks }
	:: atomic { leavers > 0 && local_waiters[me] == 0 ->
		leavers--;
		flight = leader;
		end_call(NONE, failed);
		goto leaves }
	:: atomic { frozen && !BREAK_WAITS_FOR_DOWN_SERVER -> goto falls_back }
	fi;
peeks: /* with its reply: what the replica does while it waits for it changes nothing */
	if
	:: atomic { frozen -> goto falls_back }
	:: atomic { !frozen && failures > 0 -> failures--; leave_script(leader); goto falls_back }
	:: atomic { !frozen ->
		empty_waiter();
		peek_script(leader, reply);
		if
		:: reply == running_ ->
			reply = 0;
			if
			:: has(detached, leader) && !BREAK_PEEK_TELLS_NO_FORGET -> forget_local(me, leader)
			:: else
			fi;
			settle(r);
			goto waits
		:: reply == gone ->
			verdict(P1_flight_kept_while_renewed, !has(running | storing, leader) || has(overdue, leader));
			reply = 0;
			lost = true;
			goto joining
		:: reply == done ->
			if
			:: has(joined_after, leader) && !BREAK_FETCH_IGNORES_AGE ->
				reply = 0;
				goto joining
			:: early > 0 -> early--; reply = 0; goto joining
			:: else
			fi;
			if
			:: LARGE && !has(pieces, leader) ->
				verdict(P2_outcome_found, expiries != EXPIRIES);
				witness(WITNESS_PIECES_GONE, true);
				reply = 0;
				goto falls_back
			:: else
			fi;
			witness(WITNESS_FETCHED, true);
			check_answer(leader);
			end_call(leader, answered_);
			goto answered
		fi }
	fi;

leaves: /* in the background, and once */
	if
	:: atomic { !frozen && !BREAK_LEAVE_NOT_SENT -> leave_script(flight) }
	:: atomic { !frozen && BREAK_REPEATED_LEAVE_COUNTS -> leave_script(flight); leave_script(flight) }
	:: atomic { !frozen && failures > 0 -> failures-- }
	:: atomic { frozen || BREAK_LEAVE_NOT_SENT } /* not sent */
	fi;
	atomic { flight = NONE; goto answered };

falls_back:
	atomic {
		witness(WITNESS_FALLBACK, true);
		drop(waiting, me);
		empty_waiter();
		goto alone
	};

leading:
	atomic {
		witness(WITNESS_TAKEOVER, lost);
		if
		:: BREAK_NO_RENEWAL -> drop(renewing, me)
		:: else
		fi;
		leased = true;
		drop(joins, me);
		leads = leads | (FORGETS > 0 -> bit(me) : 0);
		goto runs
	};
alone: /* unsure: the flight is given up at once */
	atomic {
		begins(me);
		drop(joins, me);
		drop(asks, me);
		fallback = fallback | (RECONNECTS + CRASHES + FORGETS > 0 -> bit(me) : 0);
		if
		:: FORGETS > 0 && !frozen ->
			add(listening, me);
			subscription[r] = (subscription[r] == cold -> asked : subscription[r])
		:: else
		fi;
		settle(r)
	};
runs: /* execute */
	atomic {
		lost = false;
		forget_call();
		add(running, me)
	};
	do
	:: atomic { leased && !frozen && !BREAK_NO_RENEWAL && renewal_counts(me) -> renews() }
	:: atomic { leased && late_renewals > 0 -> late_renewals--; add(late_renew, me) }
	:: atomic { unsure && !BREAK_UNSURE_FINISHES && can_abandon -> insist_on_abandon() }
	:: atomic { leavers > 0 && local_waiters[me] == 0 && !left ->
		leavers--;
		left = true;
		if
		:: local_flight[r] == me -> local_flight[r] = NONE
		:: else
		fi };
		if
		:: atomic { leased && !frozen -> abandon_script(me, false, given_up) }
		:: atomic { leased && frozen -> given_up = true; is_unsure() }
		:: atomic { leased && failures > 0 -> failures--; given_up = true; is_unsure() }
		:: atomic { leased && failures > 0 && !frozen -> failures--;
			abandon_script(me, false, given_up); given_up = true; unsure = true }
		:: atomic { !leased -> given_up = true }
		fi;
		if
		:: given_up -> goto gives_up
		:: else /* another replica waits */
		fi
	:: atomic { left && leased && !frozen && !has(marked, me) && !BREAK_LEADER_ASKS_ONCE ->
		witness(WITNESS_ASKED_AGAIN, true);
		abandon_script(me, false, given_up);
		goto gives_up }
	:: atomic { shutdowns > 0 ->
		shutdowns--;
		if
		:: leased && !frozen -> abandon_script(me, true, given_up)
		:: leased && (frozen || failures > 0) ->
			failures = (frozen -> failures : failures - 1);
			is_unsure()
		:: !leased
		fi;
		goto gives_up }
	:: !ENDLESS -> break
	od;

	/* returned */
	atomic {
		add(ended, me);
		drop(running, me);
		drop(fallback, me);
		end_call(me, answered_);
		given_up = false;
		left = false;
		if
		:: !leased && !(unsure && BREAK_UNSURE_FINISHES) -> goto abandons
		:: else
		fi;
		leased = false;
		unsure = false;
		add(finishing, me);
		if
		:: LARGE -> storing = storing | bit(me)
		:: else -> goto end_finish
		fi;
		if
		:: BREAK_STORE_NOT_RENEWED -> drop(renewing, me)
		:: else
		fi
	};
end_ask: /* a large outcome that nobody waits for is not stored */
	do
	:: atomic { !frozen ->
		if
		:: lease == me && (!has(marked, me) || BREAK_ASK_IGNORES_MARK) ->
			witness(WITNESS_RELEASED_UNSTORED, true);
			drop(marked, me);
			finish_script(me, notice);
			drop(renewing, me);
			drop(finishing, me);
			goto answered
		:: else -> break
		fi }
	:: atomic { !frozen && failures > 0 -> failures-- }
	od;
end_store: /* the lease is renewed meanwhile */
	do
	:: atomic { !frozen && !BREAK_STORE_NOT_RENEWED && renewal_counts(me) -> renews() }
	:: atomic { !frozen && !BREAK_NOTICE_BEFORE_PIECES -> add(pieces, me) } -> break
	:: atomic { BREAK_NOTICE_BEFORE_PIECES -> break }
	od;
end_finish: /* while Redis hangs, it waits; its callers have their answer */
	do
	:: atomic { !frozen ->
		finish_script(me, (LARGE -> notice : value)); drop(renewing, me); again = false } -> break
	:: atomic { !frozen && failures > 0 -> failures--; drop(renewing, me); add(overdue, me) }
	:: atomic { !frozen && failures > 0 -> failures--; drop(renewing, me); add(overdue, me) } -> break /* its time is over */
	:: atomic { !frozen && failures > 0 -> failures--;
		finish_script(me, (LARGE -> notice : value)); drop(renewing, me) }
	:: atomic { late_finishes > 0 && !again -> late_finishes--; again = true;
		add(late_finish, me); drop(renewing, me); add(overdue, me) }
	od;
	atomic { again = false; drop(finishing, me); storing = storing & ~bit(me); goto answered };

gives_up:
	atomic {
		drop(running, me);
		drop(fallback, me);
		drop(renewing, me);
		end_call(NONE, failed);
		given_up = false;
		left = false
	};
abandons:
	atomic { leased = false };
end_abandon:
	do
	:: atomic { unsure && can_abandon -> insist_on_abandon() }
	:: atomic { !unsure -> break }
	od;
answered:
	skip
	} unless {
		/* The replica is dead; a caller yet to come goes elsewhere. */
		atomic {
			has(dead, r) && next_caller >= me ->
			if
			:: next_caller == me -> next_caller++
			:: else
			fi
		}
	}
}

/* ----------------------------------------------------- a subscription loop */

/* wake_all makes every waiter of the replica peek. */
inline wake_all() {
	missed = missed | (waiting & at[r])
}

/* Each waiter of the replica gets the message: heard is its set for the kind. */
inline deliver(heard, flight) {
	for (i : 1 .. CALLERS) {
		if
		:: has(waiting & at[r], i) -> add(heard, flight)
		:: else
		fi
	};
	i = 0
}

proctype Replica(byte r) {
	byte flight, number;
end:
	do
	/* Redis has run the SUBSCRIBE. */
	:: d_step { subscription[r] == asked && !has(subscribed, r) && !has(dead, r) && !frozen ->
		add(subscribed, r);
		wire[r]!confirmation, 0 }
	:: d_step { wire[r]?confirmation, _ ->
		subscription[r] = confirmed;
		if
		:: !BREAK_SUBSCRIBE_WITHOUT_PEEK -> wake_all()
		:: else
		fi }
	:: d_step { wire[r]?value, flight -> deliver(heard_value[i], flight); flight = 0 }
	:: d_step { wire[r]?notice, flight -> deliver(heard_notice[i], flight); flight = 0 }
	:: d_step { wire[r]?abandoned, flight -> deliver(heard_abandoned[i], flight); flight = 0 }
	:: d_step { wire[r]?alive, flight -> deliver(heard_alive[i], flight); flight = 0 }
	:: d_step { wire[r]?alive_forgotten, flight -> deliver(heard_alive_forgotten[i], flight); flight = 0 }
	/* The key was forgotten: a flight that this replica leads, or one that it waits for. */
	:: d_step { wire[r]?forgotten_by_leader, number ->
		local_flight[r] = NONE;
		add(heard_of[r], number);
		number = 0 }
	:: d_step { wire[r]?forgotten, number ->
		local_flight[r] = (has(waiting | listening, local_flight[r]) -> NONE : local_flight[r]);
		if
		:: has(caught_up, r) && learns(r) == 0 -> add(heard_of[r], number)
		:: else -> add(unheard[r], number)
		fi;
		number = 0 }
	:: d_step { lost_notices > 0 && wire[r]?[forgotten, number] ->
		lost_notices--;
		wire[r]?forgotten, number;
		add(notice_lost[r], number);
		number = 0 }
	/* A message is lost without a sign. */
	:: d_step { losses > 0 && (wire[r]?[value, flight] || wire[r]?[notice, flight] ||
			wire[r]?[abandoned, flight]) ->
		losses--;
		if
		:: wire[r]?value, flight
		:: wire[r]?notice, flight
		:: wire[r]?abandoned, flight
		fi;
		flight = 0 }
	/* The connection breaks: disconnected wakes the waiters; the new connection
	 * subscribes anew. */
	:: d_step { reconnects > 0 && !has(dead, r) ->
		reconnects--;
		do
		:: nempty(wire[r]) -> wire[r]?_, _
		:: empty(wire[r]) -> break
		od;
		drop(subscribed, r);
		if
		:: subscription[r] == confirmed -> subscription[r] = asked
		:: else
		fi;
		control = (FORGETS > 0 -> control & ~bit(r) : control);
		caught_up = (FORGETS > 0 -> caught_up & ~bit(r) : caught_up);
		wake_all() }
	/* The control channel is subscribed again: leaders ask whether they were forgotten, and
	 * so does a join that is on its way, once it leads. */
	:: d_step { !has(control, r) && !has(dead, r) && !frozen ->
		add(control, r);
		wire[r]!control_confirmation, 0 }
	:: d_step { wire[r]?control_confirmation, _ ->
		asks = asks | (BREAK_RECONNECT_ASKS_NOTHING -> 0 : leads & at[r]) |
			(BREAK_RECONNECT_SKIPS_JOINS -> 0 : joins & at[r]);
		if
		:: local_flight[r] != NONE && BREAK_RECONNECT_FORGETS_ALL ->
			verdict(P4_nothing_forgotten_unless_missed,
				has(ever_forgotten, local_flight[r]));
			local_flight[r] = NONE
		:: else
		fi;
		add(caught_up, r);
		settle(r) }
	od
}

/* ------------------------------------------------------------ Forget (forget.go) */

proctype Forgetter(byte r) {
	byte number;
end:
	d_step { !frozen -> forget_script(); number = forgets };
	d_step {
		local_flight[r] = NONE;
		add(heard_of[r], number);
		number = 0
	}
}

/* ------------------------------------------------- time, and what goes wrong */

/* any sets flight to a member of a set that is not empty. */
inline any(set) {
	flight = 1;
	do
	:: has(set, flight) -> break
	:: ((set) >> (flight + 1)) != 0 -> flight++
	od
}

/* die ends a flight's replica, with all that runs there. */
inline die() {
	r = 0;
	do
	:: has(at[r], flight) -> break
	:: else -> r++
	od;
	add(dead, r);
	drop(subscribed, r);
	drop(control, r);
	subscription[r] = cold;
	local_flight[r] = NONE;
	do
	:: nempty(wire[r]) -> wire[r]?_, _
	:: empty(wire[r]) -> break
	od;
	waiting = waiting & ~at[r];
	missed = missed & ~at[r];
	running = running & ~at[r];
	fallback = fallback & ~at[r];
	listening = listening & ~at[r];
	joins = joins & ~at[r];
	leads = leads & ~at[r];
	asks = asks & ~at[r];
	storing = storing & ~at[r];
	renewing = renewing & ~at[r];
	finishing = finishing & ~at[r];
	for (i : 1 .. CALLERS) {
		if
		:: has(at[r], i) ->
			heard_value[i] = 0;
			heard_notice[i] = 0;
			heard_abandoned[i] = 0;
			heard_alive[i] = 0;
			heard_alive_forgotten[i] = 0
		:: else
		fi
	};
	i = 0;
	r = 0
}

/* A flight's lease runs out: the leader is dead, or late. */
inline run_out(flight) {
	overdue = overdue | (renewing & bit(flight)); /* Redis hangs */
	drop(renewing, flight);
	due = due | (strikes & bit(flight));
	release(flight)
}

/* Flights whose lease may run out, for all that their leaders do. */
#define unrenewed (frozen -> 255 : ~renewing)

/* Flights that have neither lease nor detached lease, and that are not due. */
#define vanished (strikes & ~due & ~detached & ~bit(lease))

proctype World() {
	byte flight, r, holder;
	mtype reply;
end:
	do
	/* A lease runs out. */
	:: atomic { lease != NONE && has(unrenewed, lease) ->
		flight = lease;
		run_out(flight);
		flight = 0 }
	:: atomic { (detached & unrenewed) != 0 ->
		any(detached & unrenewed);
		run_out(flight);
		flight = 0 }
	/* A lease that vanished would have run out. */
	:: atomic { (vanished & unrenewed) != 0 ->
		any(vanished & unrenewed);
		run_out(flight);
		flight = 0 }
	:: atomic { BREAK_RENEW_MOVES_NO_STRIKE && vanished != 0 ->
		any(vanished);
		add(due, flight);
		flight = 0 }
	/* A lease vanishes: it is evicted. Without its strike it is lost for good. */
	:: atomic { vanishes > 0 && lease != NONE ->
		vanishes--;
		overdue = overdue | (bit(lease) & ~strikes);
		flight = lease;
		release(flight);
		flight = 0 }
	/* Redis loses the strikes, or everything. */
	:: atomic { flushes > 0 && (strikes | detached | stored) != 0 ->
		flushes--;
		if
		:: true ->
			overdue = overdue | running | renewing;
			for (i : 1 .. CALLERS) { release(i) };
			i = 0;
			stored = 0;
			pieces = 0
		:: strikes != 0 -> overdue = overdue | vanished
		fi;
		strikes = 0;
		due = 0 }
	/* Redis hangs, and thaws. */
	:: atomic { hangs > 0 && !frozen -> hangs--; frozen = true }
	:: atomic { frozen && THAWS -> frozen = false }
	/* A leader is stopped, or its renewals do not reach Redis. */
	:: atomic { stops > 0 && (renewing & (running | finishing)) != 0 ->
		stops--;
		any(renewing & (running | finishing));
		drop(renewing, flight);
		add(overdue, flight);
		flight = 0 }
	/* A replica dies while it runs a function, or before it has shared the
	 * outcome. A leader counts, and not one that runs without a lease. */
	:: atomic { crashes > 0 && (running | finishing) != 0 ->
		crashes--;
		any(running | finishing);
		d_step {
			victims = victims + !has(shared | overdue | fallback, flight);
			/* A leader whose lease vanished is not missed before its lease was due. */
			verdict(P6_attempts_bounded, victims <= ATTEMPTS + (VANISHES - vanishes));
			die();
			flight = 0
		} }
	/* An outcome's hand-off TTL is over. */
	:: atomic { expiries > 0 && stored != 0 ->
		expiries--;
		any(stored);
		drop(stored, flight);
		flight = 0 }
	:: atomic { expiries > 0 && pieces != 0 ->
		expiries--;
		any(pieces);
		drop(pieces, flight);
		flight = 0 }
	/* Redis runs a command whose sender waits no longer. */
	:: atomic { late_join != 0 && !frozen ->
		any(late_join);
		d_step {
			drop(late_join, flight);
			join_script(flight, reply, holder);
			witness(WITNESS_JOIN_TOO_LATE, reply == too_late);
			drop(over, flight);
			reply = 0;
			holder = NONE;
			flight = 0
		} }
	:: atomic { late_renew != 0 && !frozen ->
		any(late_renew);
		d_step {
			drop(late_renew, flight);
			renew_script(flight);
			flight = 0
		} }
	:: atomic { late_finish != 0 && !frozen ->
		any(late_finish);
		d_step {
			drop(late_finish, flight);
			finish_script(flight, (LARGE -> notice : value));
			flight = 0
		} }
	od
}

init {
	byte n, r, used;
	atomic {
		read_settings();
		for (n : 0 .. REPLICAS - 1) {
			if
			:: HOT -> subscription[n] = confirmed; add(subscribed, n)
			:: else
			fi;
			add(control, n);
			add(caught_up, n);
			run Replica(n)
		}
		/* Each caller comes to a replica that has callers already, or to the
		 * next one: that is every way, but for the replicas' names. */
		for (n : 1 .. CALLERS) {
			r = 0;
			do
			:: FACING -> r = (n == 1 -> REPLICAS - 1 : 0); break
			:: !FACING && (!APART || r == n - 1) -> break
			:: !FACING && !TOGETHER && r < used && r < REPLICAS - 1 -> r++
			od;
			used = (r == used -> used + 1 : used);
			add(at[r], n);
			run Caller(n, r)
		}
		n = FORGETS;
		do
		:: n > 0 ->
			n--;
			r = 0;
			do
			:: !TOGETHER && !FACING || r == REPLICAS - 1 -> break
			:: r < REPLICAS - 1 -> r++
			od;
			run Forgetter(r)
		:: else -> break
		od;
		n = 0; r = 0; used = 0;
		run World()
	}
}
