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
 *   proctype World     time, and what goes wrong: leases that run out, leaders
 *                      that stop or die, commands that arrive late
 *   proctype Forgetter a caller of Forget (forget.go)
 *
 * There is no clock. A lease can run out as soon as nobody renews it, and never
 * has to: that covers every length of a lease and every speed of a replica.
 * Ages are an order of events: what had ended when somebody came.
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

hidden byte CALLERS = 3;     /* calls of Do; each may lead one flight, which has its number */
hidden byte REPLICAS = 2;
hidden byte ATTEMPTS = 3;    /* MaxTakeovers + 1 */
hidden byte APART;           /* 1: each caller comes to a replica of its own */
hidden byte HOT;             /* 1: every replica is subscribed already */
hidden byte LEASE_TIMER = 1; /* 0: followers never look for themselves when a lease has run out */

/* How often each thing may go wrong. */
hidden byte CRASHES;         /* replicas that die */
hidden byte STOPS;           /* leaders that are stopped, or cannot renew, for longer than their lease */
hidden byte LOSSES;          /* messages that do not arrive, without a sign of it */
hidden byte FAILURES;        /* commands that fail: before Redis ran them, or after */
hidden byte LATE_JOINS;      /* joins that fail, and which Redis runs later all the same */
hidden byte LATE_FINISHES;   /* the same of finish */
hidden byte LEAVERS;         /* flights whose local callers all leave */
hidden byte SHUTDOWNS;       /* leaders that give up though somebody waits */
hidden byte RECONNECTS;      /* subscription connections that break */
hidden byte FORGETS;         /* calls of Forget, on any replica */
hidden byte EXPIRIES;        /* outcomes that outlive the hand-off TTL */

hidden byte BREAK_JOIN_IGNORES_LEASE, BREAK_JOIN_LEAVES_NO_MARK, BREAK_JOIN_COMES_AFTER_ABANDON;
hidden byte BREAK_ATTEMPTS_NOT_COUNTED, BREAK_REPEATED_FINISH_CLEARS_ATTEMPTS;
hidden byte BREAK_NO_RENEWAL, BREAK_RENEW_FORGETS_DETACHED;
hidden byte BREAK_FINISH_DELETES_FOREIGN_LEASE, BREAK_RETRY_SENDS_OUTCOME;
hidden byte BREAK_LATE_FINISH_SENDS_OUTCOME, BREAK_LATE_FINISH_LOOKS_FRESH, BREAK_LATE_FINISH_CLEARS_ATTEMPTS;
hidden byte BREAK_UNSURE_FINISHES, BREAK_ABANDON_SAYS_NOTHING;
hidden byte BREAK_FORGET_DETACHES_NOTHING, BREAK_FORGET_KEEPS_LEASE;
hidden byte BREAK_LOCAL_TIER_IGNORES_AGE, BREAK_LOCAL_TIER_JOINS_ENDED;
hidden byte BREAK_OWN_REPLICA_JOINS_ENDED, BREAK_ENDED_LIST_READ_AFTER_JOIN;
hidden byte BREAK_FETCH_IGNORES_AGE, BREAK_TAKES_ANY_MESSAGE, BREAK_SUBSCRIBE_WITHOUT_PEEK;

hidden byte WITNESS_TAKEOVER, WITNESS_POISONED, WITNESS_FETCHED, WITNESS_ABANDONED, WITNESS_LATE_OUTCOME;
hidden byte WITNESS_JOIN_TOO_LATE;

#define setting(name) { char *value = getenv(#name); if (value) name = atoi(value); }

inline read_settings() {
	c_code {
		setting(CALLERS) setting(REPLICAS) setting(ATTEMPTS) setting(APART) setting(HOT) setting(LEASE_TIMER)
		setting(CRASHES) setting(STOPS) setting(LOSSES) setting(FAILURES) setting(LATE_JOINS)
		setting(LATE_FINISHES) setting(LEAVERS) setting(SHUTDOWNS) setting(RECONNECTS)
		setting(FORGETS) setting(EXPIRIES)
		setting(BREAK_JOIN_IGNORES_LEASE) setting(BREAK_JOIN_LEAVES_NO_MARK) setting(BREAK_JOIN_COMES_AFTER_ABANDON)
		setting(BREAK_ATTEMPTS_NOT_COUNTED) setting(BREAK_REPEATED_FINISH_CLEARS_ATTEMPTS)
		setting(BREAK_NO_RENEWAL) setting(BREAK_RENEW_FORGETS_DETACHED)
		setting(BREAK_FINISH_DELETES_FOREIGN_LEASE) setting(BREAK_RETRY_SENDS_OUTCOME)
		setting(BREAK_LATE_FINISH_SENDS_OUTCOME) setting(BREAK_LATE_FINISH_LOOKS_FRESH)
		setting(BREAK_LATE_FINISH_CLEARS_ATTEMPTS)
		setting(BREAK_UNSURE_FINISHES) setting(BREAK_ABANDON_SAYS_NOTHING)
		setting(BREAK_FORGET_DETACHES_NOTHING) setting(BREAK_FORGET_KEEPS_LEASE)
		setting(BREAK_LOCAL_TIER_IGNORES_AGE) setting(BREAK_LOCAL_TIER_JOINS_ENDED)
		setting(BREAK_OWN_REPLICA_JOINS_ENDED) setting(BREAK_ENDED_LIST_READ_AFTER_JOIN)
		setting(BREAK_FETCH_IGNORES_AGE) setting(BREAK_TAKES_ANY_MESSAGE) setting(BREAK_SUBSCRIBE_WITHOUT_PEEK)
		setting(WITNESS_TAKEOVER) setting(WITNESS_POISONED) setting(WITNESS_FETCHED)
		setting(WITNESS_ABANDONED) setting(WITNESS_LATE_OUTCOME) setting(WITNESS_JOIN_TOO_LATE)
	};
	assert(CALLERS <= MOST_CALLERS && REPLICAS <= MOST_REPLICAS && (!APART || CALLERS <= REPLICAS));
	crashes = CRASHES; stops = STOPS; losses = LOSSES; failures = FAILURES;
	late_joins = LATE_JOINS; late_finishes = LATE_FINISHES;
	leavers = LEAVERS; shutdowns = SHUTDOWNS; reconnects = RECONNECTS; expiries = EXPIRIES
}

#define NONE 0
#define bit(i)       (1 << (i))
#define has(set, i)  (((set) & bit(i)) != 0)
#define add(set, i)  set = set | bit(i)
#define drop(set, i) set = set & ~bit(i)

/* Words of the scripts' replies, kinds of messages, states of a subscription,
 * and how a call came by its answer. */
mtype = { lead, follow, poisoned, too_late, done, running_, gone };
mtype = { value, notice, abandoned, confirmation, forgotten };
mtype = { cold, asked, confirmed };
mtype = { own, by_message, by_peek, failed };

/* ------------------------------------------------------------------ Redis */

byte lease;            /* the flight that holds it, or NONE */
bool joined;           /* the lease's first character */
byte attempts;
byte detached;         /* set of flights with a detached lease */
byte detached_joined;  /* those of them that somebody had joined */
byte over;             /* set of flights given up whose join is yet to come */
byte stored;           /* set of flights whose result key exists */
byte subscribed;       /* set of replicas that Redis publishes the channel to */

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
byte finishing;             /* set of flights in their replicas' finishing lists */
byte renewing;              /* set of flights whose leader renews in time */
byte started_after[MOST_CALLERS + 1], came_after_age[MOST_CALLERS + 1];
                            /* by call and by caller: the flights that had ended before it, as
                             * far as their age will tell */

/* How each local flight ended, for the callers that joined it. */
byte ended_calls;
byte answer_flight[MOST_CALLERS + 1];
mtype answer_how[MOST_CALLERS + 1];
byte local_waiters[MOST_CALLERS + 1];

/* ------------------------------- what the properties, and they alone, know */

byte ended;            /* set of flights whose function has returned */
byte unheard;          /* set of flights whose first finish failed before Redis ran it */
byte running;          /* set of flights whose function runs, of those that others may wait for */
byte granted;          /* set of flights whose lease has not run out, nor been given back or forgotten */
byte begun;            /* set of flights whose function runs or has run, or which hold the lease */
byte overdue;          /* set of flights whose leader was stopped, or could not renew */
byte shared;           /* set of flights whose finish Redis has run */
byte victims;          /* leaders that died since an outcome was shared */
byte before_forget[MOST_REPLICAS]; /* flights begun before a Forget that this replica knows of */

/* What may go wrong still. */
byte crashes, stops, losses, failures, late_joins, late_finishes;
byte leavers, shutdowns, reconnects, expiries;
byte late_join, late_finish; /* sets of flights with such a command still on its way */

/* The verdicts. Spin names the one that a trail ends with. */
hidden byte P1_one_flight, P1_flight_kept_while_renewed;
hidden byte P3_joined_that_flight, P3_not_stale;
hidden byte P4_forgotten_flight_not_joined;
hidden byte P6_attempts_bounded;
hidden byte queue_long_enough;
hidden byte i, was_joined;

/* Only Forget asks what has begun. */
#define begins(flight) begun = begun | (FORGETS > 0 -> bit(flight) : 0)

#define verdict(name, claim) name = (claim); assert(name)
#define witness(name, event) assert(!(name && (event)))

/* ---------------------------------------------------------------- scripts */

/* PUBLISH on the key's channel. A message to a replica where nobody waits is
 * left out: whoever waits there later follows a flight that holds the lease
 * then, and that a flight that is over cannot, but for a join that is late. */
inline publish(kind, flight) {
	for (i : 0 .. REPLICAS - 1) {
		if
		:: has(subscribed, i) && (LATE_JOINS > 0 || (waiting & at[i]) != 0) ->
			verdict(queue_long_enough, nfull(wire[i]));
			wire[i]!kind, flight
		:: else
		fi
	};
	i = 0
}

/* join.lua, without MaxAge. */
inline join_script(flight, reply, holder) {
	if
	:: lease != NONE && lease != flight && (!BREAK_JOIN_IGNORES_LEASE || joined) ->
		holder = lease;
		joined = !BREAK_JOIN_LEAVES_NO_MARK;
		reply = follow
	:: lease == flight ->
		reply = lead
	:: lease == NONE && has(over, flight) && !BREAK_JOIN_COMES_AFTER_ABANDON ->
		reply = too_late
	:: else ->
		if
		:: attempts >= ATTEMPTS ->
			reply = poisoned
		:: else ->
			attempts = attempts + !BREAK_ATTEMPTS_NOT_COUNTED;
			verdict(P1_one_flight, granted == 0);
			lease = flight;
			joined = false;
			add(granted, flight);
			begins(flight);
			reply = lead
		fi
	fi
}

/* peek.lua */
inline peek_script(flight, reply) {
	if
	:: has(stored, flight) -> reply = done
	:: else ->
		if
		:: lease == flight || has(detached, flight) -> reply = running_
		:: else -> reply = gone
		fi
	fi
}

/* renew.lua. Redis keeps what is renewed in time, so that an extension changes
 * nothing here. */
inline renew_script(flight) {
	if
	:: lease == flight
	:: has(detached, flight) && !BREAK_RENEW_FORGETS_DETACHED
	:: else -> drop(renewing, flight)
	fi
}

/* finish.lua, without MaxAge. In a repeated or late try, the attempts may be
 * those of others who led since. */
inline finish_script(flight, kind, others_led) {
	was_joined = true;
	if
	:: lease == flight || (BREAK_FINISH_DELETES_FOREIGN_LEASE && lease != NONE) ->
		was_joined = joined;
		lease = NONE;
		joined = false;
		attempts = 0
	:: else ->
		was_joined = !has(detached, flight) || has(detached_joined, flight);
		drop(detached, flight);
		drop(detached_joined, flight);
		if
		:: lease == NONE && !(others_led) -> attempts = 0
		:: else
		fi
	fi;
	drop(granted, flight);
	if
	:: CRASHES > 0 && !has(shared, flight) -> add(shared, flight); victims = 0
	:: else
	fi;
	if
	:: was_joined ->
		add(stored, flight);
		publish(kind, flight)
	:: else
	fi
}

/* abandon.lua. That the join comes too late is kept only where one is on its way. */
inline abandon_script(flight, forced, given_up) {
	was_joined = (lease == flight && joined) || has(detached_joined, flight);
	given_up = forced || !was_joined;
	if
	:: given_up ->
		drop(running, flight); /* nobody waits for the function: its context has ended, or does now */
		if
		:: lease != flight && !has(detached, flight) ->
			was_joined = true;
			over = over | (late_join & bit(flight))
		:: else
		fi;
		drop(detached, flight);
		drop(detached_joined, flight);
		drop(granted, flight);
		if
		:: lease == flight ->
			lease = NONE;
			joined = false;
			if
			:: attempts > 0 -> attempts--
			:: else
			fi
		:: else
		fi;
		if
		:: was_joined && !BREAK_ABANDON_SAYS_NOTHING -> publish(abandoned, flight)
		:: else
		fi
	:: else
	fi
}

/* forget.lua, sent by replica r. Every replica is subscribed to the control
 * channel; the sender passes its own notice over. The notice names the flights
 * begun before it, for the property's sake. */
inline forget_script() {
	if
	:: lease != NONE ->
		if
		:: !BREAK_FORGET_DETACHES_NOTHING ->
			add(detached, lease);
			if
			:: joined -> add(detached_joined, lease)
			:: else
			fi
		:: else
		fi;
		drop(granted, lease);
		if
		:: !BREAK_FORGET_KEEPS_LEASE ->
			lease = NONE;
			joined = false
		:: else
		fi
	:: else
	fi;
	attempts = 0;
	victims = 0;
	for (i : 0 .. REPLICAS - 1) {
		if
		:: i != r && !has(dead, i) ->
			verdict(queue_long_enough, nfull(wire[i]));
			wire[i]!forgotten, begun
		:: else
		fi
	};
	i = 0
}

/* ------------------------------------------------------------- one caller */

/* take empties the waiter's messages. */
inline empty_waiter() {
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
	empty_waiter();
	if
	:: local_flight[r] == me -> local_flight[r] = NONE
	:: else
	fi;
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
	came_after_retry = 0;
	came_after_forget = 0;
	came_after_age[me] = 0;
	started_after[me] = 0;
	own_ended = 0;
	leader = NONE;
	reply = 0
}

/* What a caller may take. One that came after the flight had ended takes its
 * outcome only from a message, on another replica, and only from the first try
 * of finish. */
inline check_answer(flight, how) {
	verdict(P3_not_stale, !has(came_after, flight) ||
		(how == by_message && !has(at[r], flight) && !has(came_after_retry, flight)));
	verdict(P4_forgotten_flight_not_joined, !has(came_after_forget, flight))
}

/* From the second try on, finish sends a notice. */
inline retries() {
	message = (BREAK_RETRY_SENDS_OUTCOME -> value : notice);
	again = true
}

/* One try to give up a flight that nobody knows whether Redis has. It is the
 * last when Redis has taken it, or the time for it is over. */
inline insist_on_abandon() {
	if
	:: abandon_script(me, true, given_up); unsure = false
	:: failures > 0 -> failures--; abandon_script(me, true, given_up)
	:: failures > 0 -> failures--
	:: failures > 0 -> failures--; unsure = false
	fi;
	given_up = false
}

/* A local follower has its answer; the last one forgets it. */
inline local_follower_leaves() {
	local_waiters[leader]--;
	if
	:: local_waiters[leader] == 0 ->
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
	byte came_after, came_after_retry, came_after_forget; /* flights, when the caller came */
	byte own_ended;        /* the replica's finishing list before the join */
	byte leader;           /* the flight that is followed */
	mtype reply, message;
	bool lost, unsure, leased, left, given_up, again;

	{
	atomic {
		next_caller == me -> next_caller++;
		came_after = ended;
		came_after_age[me] = ended;
		came_after_retry = unheard;
		came_after_forget = before_forget[r];
	local_tier: /* Do: joins the local flight, or starts one */
		if
		:: local_flight[r] != NONE ->
			leader = local_flight[r];
			local_waiters[leader]++
		:: else ->
			local_flight[r] = me;
			started_after[me] = ended;
			goto joining
		fi
	};
	atomic {
		has(ended_calls, leader) ->
		if
		:: answer_how[leader] == by_peek && has(came_after_age[me], answer_flight[leader]) &&
				!BREAK_LOCAL_TIER_IGNORES_AGE ->
			local_follower_leaves();
			goto local_tier
		:: else ->
			if
			:: answer_how[leader] != failed ->
				check_answer(answer_flight[leader], answer_how[leader])
			:: else
			fi;
			local_follower_leaves();
			forget_call();
			goto answered
		fi
	};

joining:
	atomic {
		leader = NONE;
		if
		:: !has(waiting, me) && subscription[r] == confirmed -> add(waiting, me)
		:: else
		fi;
		own_ended = finishing & at[r]
	};
	if
	:: atomic {
		d_step { join_script(me, reply, leader) };
		if
		:: reply == lead -> add(renewing, me)
		:: else
		fi }
	:: atomic { failures > 0 -> failures--; unsure = true; goto alone }
	:: atomic { failures > 0 -> failures--; unsure = true;
		d_step { join_script(me, reply, leader) };
		goto alone }
	:: atomic { late_joins > 0 -> late_joins--; unsure = true; add(late_join, me); goto alone }
	fi;
	if
	:: atomic { reply == lead -> goto leading }
	:: atomic { reply == poisoned ->
		witness(WITNESS_POISONED, true);
		end_call(NONE, failed);
		goto answered }
	:: atomic { reply == follow ->
		reply = 0;
		if
		:: !BREAK_OWN_REPLICA_JOINS_ENDED &&
			has((BREAK_ENDED_LIST_READ_AFTER_JOIN -> finishing & at[r] : own_ended), leader)
		:: else -> goto following
		fi }
	fi;
	/* afterOwn */
	atomic { !has(finishing, leader) -> goto joining };

following:
	atomic {
		own_ended = 0;
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
		witness(WITNESS_LATE_OUTCOME, has(overdue, leader) && lease != NONE && lease != leader);
		check_answer(leader, by_message);
		end_call(leader, by_message);
		goto answered }
	:: atomic { BREAK_TAKES_ANY_MESSAGE && heard_value[me] != 0 && !has(heard_value[me], leader) ->
		verdict(P3_joined_that_flight, false) }
	:: atomic { has(heard_abandoned[me], leader) ->
		witness(WITNESS_ABANDONED, true);
		empty_waiter();
		lost = true;
		goto joining }
	:: atomic { has(heard_notice[me], leader) || has(missed, me) -> goto peeks }
	:: atomic { LEASE_TIMER && lease != leader && !has(detached, leader) -> goto peeks }
	:: atomic { leavers > 0 && local_waiters[me] == 0 ->
		leavers--;
		end_call(NONE, failed);
		goto answered }
	fi;
peeks: /* with its reply: what the replica does while it waits for it changes nothing */
	atomic {
		empty_waiter();
		peek_script(leader, reply);
		if
		:: reply == running_ ->
			reply = 0;
			goto waits
		:: reply == gone ->
			verdict(P1_flight_kept_while_renewed, !has(running, leader) || has(overdue, leader));
			reply = 0;
			lost = true;
			goto joining
		:: reply == done ->
			if
			:: has(started_after[me], leader) && !BREAK_FETCH_IGNORES_AGE ->
				reply = 0;
				goto joining
			:: else
			fi;
			witness(WITNESS_FETCHED, true);
			check_answer(leader, by_peek);
			end_call(leader, by_peek);
			goto answered
		fi
	};

leading:
	atomic {
		witness(WITNESS_TAKEOVER, lost);
		if
		:: BREAK_NO_RENEWAL -> drop(renewing, me)
		:: else
		fi;
		goto runs
	};
alone: /* unsure: Redis may have taken the join, or may yet; the flight is given up at once */
	atomic {
		begins(me);
		add(overdue, me) /* it renews nothing */
	};
runs: /* execute */
	atomic {
		leased = !unsure;
		lost = false;
		forget_call();
		add(running, me)
	};
	do
	:: atomic { has(renewing, me) -> renew_script(me) }
	:: atomic { unsure && !BREAK_UNSURE_FINISHES -> insist_on_abandon() }
	:: atomic { leavers > 0 && local_waiters[me] == 0 && !left ->
		leavers--;
		left = true;
		if
		:: local_flight[r] == me -> local_flight[r] = NONE
		:: else
		fi };
		if
		:: atomic { leased -> abandon_script(me, false, given_up) }
		:: atomic { leased && failures > 0 -> failures--; given_up = true; unsure = true }
		:: atomic { leased && failures > 0 -> failures--; abandon_script(me, false, given_up); given_up = true; unsure = true }
		:: atomic { !leased -> given_up = true }
		fi;
		if
		:: given_up -> goto gives_up
		:: else /* another replica waits */
		fi
	:: atomic { shutdowns > 0 ->
		shutdowns--;
		if
		:: leased -> abandon_script(me, true, given_up)
		:: leased && failures > 0 -> failures--; unsure = true
		:: !leased
		fi;
		goto gives_up }
	:: break
	od;

	/* returned */
	atomic {
		add(ended, me);
		drop(running, me);
		drop(renewing, me);
		end_call(me, own);
		given_up = false;
		left = false;
		if
		:: !leased && !BREAK_UNSURE_FINISHES -> goto abandons
		:: else
		fi;
		leased = false;
		unsure = false;
		add(finishing, me);
		message = value;
		/* A second flight of this replica may follow this one: when the
		 * local tier forgot the first, or its callers left. Nobody joins
		 * that one any more. */
		if
		:: !BREAK_LOCAL_TIER_JOINS_ENDED -> local_flight[r] = NONE
		:: else
		fi
	};
	do /* finish */
	:: atomic { finish_script(me, message, again && !BREAK_REPEATED_FINISH_CLEARS_ATTEMPTS); message = 0; again = false } -> break
	:: atomic { failures > 0 -> failures--; add(unheard, me); retries() }
	:: atomic { failures > 0 -> failures--; message = 0; again = false } -> break /* its time is over */
	:: atomic { failures > 0 -> failures--; finish_script(me, message, again && !BREAK_REPEATED_FINISH_CLEARS_ATTEMPTS); retries() }
	:: atomic { late_finishes > 0 && !again -> late_finishes--; add(late_finish, me); add(unheard, me); retries() }
	od;
	atomic { drop(finishing, me); goto answered };

gives_up:
	atomic {
		drop(running, me);
		drop(renewing, me);
		end_call(NONE, failed);
		given_up = false;
		left = false
	};
abandons:
	atomic { leased = false };
	do
	:: atomic { unsure -> insist_on_abandon() }
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
	byte flight;
	mtype message;
end:
	do
	/* Redis has run the SUBSCRIBE. */
	:: d_step { subscription[r] == asked && !has(subscribed, r) && !has(dead, r) ->
		add(subscribed, r);
		wire[r]!confirmation, 0 }
	:: d_step { wire[r]?confirmation, flight ->
		subscription[r] = confirmed;
		if
		:: !BREAK_SUBSCRIBE_WITHOUT_PEEK -> wake_all()
		:: else
		fi }
	:: d_step { wire[r]?value, flight -> deliver(heard_value[i], flight); flight = 0 }
	:: d_step { wire[r]?notice, flight -> deliver(heard_notice[i], flight); flight = 0 }
	:: d_step { wire[r]?abandoned, flight -> deliver(heard_abandoned[i], flight); flight = 0 }
	:: d_step { wire[r]?forgotten, flight ->
		local_flight[r] = NONE;
		before_forget[r] = before_forget[r] | flight;
		flight = 0 }
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
	/* The connection breaks: disconnected wakes the waiters; connected, on the
	 * new connection, forgets the local tier's flights and subscribes anew. */
	:: atomic { reconnects > 0 && !has(dead, r) ->
		reconnects--;
		do
		:: wire[r]?message, flight
		:: empty(wire[r]) -> break
		od;
		message = 0;
		flight = 0;
		drop(subscribed, r);
		if
		:: subscription[r] == confirmed -> subscription[r] = asked
		:: else
		fi;
		wake_all() };
		local_flight[r] = NONE
	od
}

/* ------------------------------------------------------------ Forget (forget.go) */

proctype Forgetter(byte r) {
	byte old;
	d_step { old = begun; forget_script() };
	d_step {
		local_flight[r] = NONE;
		before_forget[r] = before_forget[r] | old;
		old = 0
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
	subscription[r] = cold;
	local_flight[r] = NONE;
	do
	:: nempty(wire[r]) -> wire[r]?_, _
	:: empty(wire[r]) -> break
	od;
	waiting = waiting & ~at[r];
	missed = missed & ~at[r];
	running = running & ~at[r];
	renewing = renewing & ~at[r];
	finishing = finishing & ~at[r];
	for (i : 1 .. CALLERS) {
		if
		:: has(at[r], i) ->
			heard_value[i] = 0;
			heard_notice[i] = 0;
			heard_abandoned[i] = 0
		:: else
		fi
	};
	i = 0;
	r = 0
}

proctype World() {
	byte flight, r, holder;
	mtype reply;
end:
	do
	/* A lease runs out. */
	:: atomic { lease != NONE && !has(renewing, lease) ->
		drop(granted, lease);
		lease = NONE;
		joined = false }
	:: atomic { (detached & ~renewing) != 0 ->
		any(detached & ~renewing);
		drop(detached, flight);
		drop(detached_joined, flight);
		flight = 0 }
	/* A leader is stopped, or its renewals do not reach Redis. */
	:: atomic { stops > 0 && (renewing & running) != 0 ->
		stops--;
		any(renewing & running);
		drop(renewing, flight);
		add(overdue, flight);
		flight = 0 }
	/* A replica dies while it runs a function, or before it has shared the
	 * outcome. A leader counts, and not one that runs without a lease. */
	:: atomic { crashes > 0 && (running | finishing) != 0 ->
		crashes--;
		any(running | finishing);
		d_step {
			victims = victims + !has(shared | overdue, flight);
			verdict(P6_attempts_bounded, victims <= ATTEMPTS);
			die();
			flight = 0
		} }
	/* An outcome's hand-off TTL is over. */
	:: atomic { expiries > 0 && stored != 0 ->
		expiries--;
		any(stored);
		drop(stored, flight);
		flight = 0 }
	/* Redis runs a command whose sender waits no longer. */
	:: atomic { late_join != 0 ->
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
	:: atomic { late_finish != 0 ->
		any(late_finish);
		d_step {
			drop(late_finish, flight);
			/* It is older than the Redis timeout: finish.lua sends
			 * a notice, and stores the earliest end it can have had. */
			finish_script(flight, (BREAK_LATE_FINISH_SENDS_OUTCOME -> value : notice),
				!BREAK_LATE_FINISH_CLEARS_ATTEMPTS);
			for (i : 1 .. CALLERS) {
				if
				:: BREAK_LATE_FINISH_LOOKS_FRESH ->
					drop(started_after[i], flight);
					drop(came_after_age[i], flight)
				:: else
				fi
			};
			i = 0;
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
			run Replica(n)
		}
		/* Each caller comes to a replica that has callers already, or to the
		 * next one: that is every way, but for the replicas' names. */
		for (n : 1 .. CALLERS) {
			r = 0;
			do
			:: !APART || r == n - 1 -> break
			:: r < used && r < REPLICAS - 1 -> r++
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
			:: break
			:: r < REPLICAS - 1 -> r++
			od;
			run Forgetter(r)
		:: else -> break
		od;
		n = 0; r = 0; used = 0;
		run World()
	}
}
