package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// several is the row of the faults that were injected at the same time as
// others.
const several = "several at once"

// fault is one row of the table.
type fault struct {
	name    string
	living  string // name of the row of the keys that it does not hit; "": it hits all
	effects history.Effects
	bound   bound
	// most is the price: how many executions a round of callers may have while it lasts,
	// the one that it needs included.
	most float64
	calm time.Duration // after it, for the fleet to recover
	// needs says what of the machine the fault needs and is not there; "": nothing.
	needs  func() string
	inject func(context.Context, episode, *rand.Rand) error
}

// bound is what the protocol promises of a fault: how long those who waited at
// its begin wait on for nothing, by what they wait for.
type bound struct {
	measure measurement
	limit   time.Duration
	text    string
	// arriving is the same for callers that come while it lasts; 0: nothing.
	arriving time.Duration
}

// recovering is how long the fleet needs until it uses a Redis again that was down: by
// then, a probe has been answered.
const recovering = 250*time.Millisecond + redisTimeout

// longestDelay is by how much messages and replies are delayed at most.
const longestDelay = 500 * time.Millisecond

// longestSpoiled is how long messages or replies are spoiled at most.
const longestSpoiled = 2 * leaseTTL

var (
	withinLease = bound{measure: waiters, limit: leaseTTL, text: "lease TTL"}
	// A lease that was forged is one more to wait for.
	withinTwo     = bound{measure: waiters, limit: 2 * leaseTTL, text: "2 lease TTLs"}
	withinTimeout = bound{measure: waiters, limit: redisTimeout, text: "Redis timeout"}
	whileItLasts  = bound{measure: waiters, limit: longestSpoiled + redisTimeout, text: "its end + Redis timeout"}
	withinBoth    = bound{measure: waiters, limit: leaseTTL + redisTimeout, text: "lease TTL + Redis timeout"}
)

// arriving adds the bound of callers that come while Redis cannot be used.
func arriving(b bound) bound {
	b.arriving = redisTimeout
	return b
}

// allFaults are those of campaigns on one machine and on hosts.
func allFaults() []fault {
	all := slices.Concat(faults, hostFaults)
	for _, f := range slices.Concat(clusterFaults, clusterHostFaults) {
		all = append(all, f.fault)
	}
	for _, f := range sentinelFaults {
		all = append(all, f.fault)
	}
	return all
}

// Names returns the names of all faults.
func Names() []string {
	var names []string
	for _, f := range allFaults() {
		names = append(names, f.name)
	}
	return names
}

// faults are those that are injected into the replicas one at a time.
func (c *campaign) faults() []fault {
	if c.config.Hosts {
		return hostFaults
	}
	return faults
}

// chosen returns those of the faults that are to be injected and can be here.
func (c *campaign) chosen(of []fault) []fault {
	return slices.DeleteFunc(slices.Clone(of), func(f fault) bool {
		return !c.wants(f.name) || f.missing() != ""
	})
}

func (c *campaign) wants(fault string) bool {
	return len(c.config.Faults) == 0 || slices.Contains(c.config.Faults, fault)
}

// missing says what the machine lacks for the fault; "": nothing.
func (f fault) missing() string {
	if f.needs == nil {
		return ""
	}
	return f.needs()
}

// skipped returns the faults that are wanted and not injected, and what each needs.
func (c *campaign) skipped() map[string]string {
	found := map[string]string{}
	for _, f := range c.faults() {
		if missing := f.missing(); missing != "" && c.wants(f.name) {
			found[f.name] = missing
		}
	}
	return found
}

// episode is one injection of a fault.
type episode struct {
	*campaign
	fault fault
	row   string
}

func (c *campaign) episode(f fault, row string) episode { return episode{c, f, row} }

// begin writes down that the fault begins. end writes down that it is undone.
func (e episode) begin(target string, on held) (end func() error) {
	id := strconv.FormatUint(e.injections.Add(1), 10)
	record := history.Record{Kind: history.FaultBegin, Fault: e.row, Target: target, Injection: id, Key: on.key, Flight: on.flight, Keys: on.keys, Effects: &e.fault.effects}
	_, err := e.history.Write(record)
	return func() error {
		record.Kind, record.Effects, record.Keys = history.FaultEnd, nil, nil
		_, endErr := e.history.Write(record)
		return errors.Join(err, endErr)
	}
}
