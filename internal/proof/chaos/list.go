package chaos

import (
	"slices"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// faults are all that is injected into the library's replicas.
var faults = slices.Concat(processFaults, redisFaults, networkFaults)

var processFaults = []fault{
	{
		name: "leader killed", effects: history.Effects{Kills: true}, most: 1.25, calm: leaseTTL / 2,
		bound: bound{measure: takeover, limit: leaseTTL, text: "lease TTL + 1 round trip"}, inject: killLeader,
	},
	{
		name: "leader stopped", effects: history.Effects{Stops: true}, most: 1.25, calm: leaseTTL / 2,
		bound: bound{measure: takeover, limit: leaseTTL, text: "lease TTL + 1 round trip"}, inject: stopLeader,
	},
	{
		name: "follower stopped", effects: history.Effects{Stops: true}, most: 1.25, calm: leaseTTL / 2,
		bound: withinLease, inject: stopFollower,
	},
	{
		name: "leader shut down", effects: history.Effects{Kills: true}, most: 1.25, calm: leaseTTL / 2,
		bound: bound{measure: waiters, limit: grace, text: "grace period"}, inject: shutDownLeader,
	},
	{
		name: "clock set forward", effects: history.Effects{LosesKeys: true, SetsClock: true}, most: 1.3, calm: leaseTTL / 2,
		bound: withinLease, needs: needsClock, inject: setClockForward,
	},
	{
		name: "clock set back", effects: history.Effects{Kills: true, LosesKeys: true, SetsClock: true}, most: 1.3, calm: leaseTTL / 2,
		bound: bound{measure: takeover, limit: 2 * leaseTTL, text: "2 lease TTLs"}, needs: needsClock, inject: setClockBack,
	},
}

var redisFaults = []fault{
	{
		name: "Redis killed", most: 2.5, calm: recovering,
		effects: history.Effects{LosesKeys: true, Unusable: true, LosesMessages: true},
		bound:   arriving(withinTimeout), inject: killRedis,
	},
	{
		name: "Redis frozen", effects: history.Effects{Unusable: true, LosesMessages: true}, most: 2.5, calm: recovering,
		bound: arriving(withinBoth), inject: freezeRedis,
	},
	{
		name: "Redis full", effects: history.Effects{Unreliable: true, LosesMessages: true}, most: 2.5, calm: recovering,
		bound: arriving(withinBoth), inject: fillRedis,
	},
	{
		name: "Redis read-only", effects: history.Effects{Unreliable: true, LosesMessages: true}, most: 2.5, calm: recovering,
		bound: arriving(withinBoth), inject: demoteRedis,
	},
	{
		// What clients' buffers take cannot be evicted, so some writes may be refused too.
		name: "keys evicted", effects: history.Effects{LosesKeys: true, Unreliable: true}, most: 1.6, calm: leaseTTL / 2,
		bound: withinLease, inject: evictKeys,
	},
	{
		name: "stored results lost", effects: history.Effects{LosesKeys: true}, most: 1.6, calm: leaseTTL / 2,
		bound: withinLease, inject: dropResults,
	},
	{name: "scripts flushed", most: 1.1, bound: withinTimeout, inject: flushScripts},
	{
		name: "SUBSCRIBE refused", effects: history.Effects{LosesMessages: true, Unreliable: true}, most: 2.5, calm: recovering,
		bound: withinTimeout, inject: refuseSubscriptions,
	},
	{
		name: "subscriptions cut", effects: history.Effects{LosesMessages: true}, most: 1.1, calm: leaseTTL / 2,
		bound: withinTimeout, inject: cutConnections("pubsub"),
	},
	{
		name: "subscriptions cut again and again", effects: history.Effects{LosesMessages: true}, most: 1.1, calm: leaseTTL / 2,
		bound: withinBoth, inject: cutAgainAndAgain,
	},
	{
		name: "connections cut", effects: history.Effects{Unreliable: true}, most: 1.2, calm: recovering,
		bound: withinTimeout, inject: cutConnections("normal"),
	},
	{
		name: "output buffers full", effects: history.Effects{LosesMessages: true, Unreliable: true, Garbage: true}, most: 2, calm: recovering,
		bound: withinBoth, inject: fillOutputBuffers,
	},
	{
		name: "garbage in keys", effects: history.Effects{Garbage: true, LosesKeys: true}, most: 2, calm: leaseTTL / 2,
		bound: withinTwo, inject: spoilKeys,
	},
	{
		name: "garbage in messages", effects: history.Effects{Garbage: true}, most: 1.1, calm: leaseTTL / 2,
		bound: withinTimeout, inject: spoilMessages,
	},
	{name: "another fleet on db 1", most: 1.05, bound: withinTimeout, inject: runAnotherFleet},
}

var networkFaults = []fault{
	{name: "none", most: 1.05, bound: withinTimeout, inject: injectNothing},
	{
		name: "messages delayed", effects: history.Effects{LosesMessages: true, Delay: longestDelay}, most: 1.2, calm: leaseTTL / 2,
		bound: withinLease, inject: spoilMessagesOfOne("latency", "latency", 200, int(longestDelay.Milliseconds())),
	},
	{
		name: "messages cut short", effects: history.Effects{LosesMessages: true}, most: 1.3, calm: leaseTTL / 2,
		bound: whileItLasts, inject: spoilMessagesOfOne("limit_data", "bytes", 1, 400),
	},
	{
		name: "messages lost", effects: history.Effects{LosesMessages: true}, most: 1.4, calm: leaseTTL / 2,
		bound: withinLease, inject: spoilMessagesOfOne("timeout", "timeout", 0, 1),
	},
	{
		name: "1 in 1000 replies held", effects: history.Effects{Holds: true}, most: 1.05, calm: leaseTTL / 2,
		bound: withinBoth, inject: holdReplies(1000),
	},
	{
		name: "1 in 100 replies held", effects: history.Effects{Holds: true}, most: 1.1, calm: leaseTTL / 2,
		bound: withinBoth, inject: holdReplies(100),
	},
	{
		name: "thin link", effects: history.Effects{Unreliable: true}, most: 1.4, calm: recovering,
		bound: withinBoth, inject: thinLinkOfOne,
	},
	{
		name: "replies delayed", effects: history.Effects{Unusable: true}, most: 1.4, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("latency", "latency", 200, int(longestDelay.Milliseconds())),
	},
	{
		name: "replies cut short", effects: history.Effects{Unreliable: true}, most: 1.4, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("limit_data", "bytes", 1, 400),
	},
	{
		name: "replies lost", effects: history.Effects{Unusable: true}, most: 1.4, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("timeout", "timeout", 0, 1),
	},
	{
		name: "connections reset", effects: history.Effects{Unreliable: true}, most: 1.4, calm: recovering,
		bound: withinBoth, inject: spoilRepliesOfOne("reset_peer", "timeout", 0, 50),
	},
}
