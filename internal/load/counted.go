package load

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Counted returns what the replicas counted during a run: the difference between their
// statistics now and before, which FleetStats returned before the run began. It returns
// an error if the counts cannot be known: a replica does not answer, the fleet has
// changed, a replica has been restarted, or its statistics have been reset.
//
// If the replicas do not know each other (Note says so), the counts are those of one
// replica. They are known if that replica sent every response.
func (t Target) Counted(ctx context.Context, before Stats, run *Result) (Stats, error) {
	ask := func() (Stats, error) {
		return t.fleetStats(ctx, func(after Stats) error {
			if err := after.complete(); err != nil {
				return err
			}
			return after.matches(before, run)
		})
	}
	after, err := ask()
	if err == nil {
		after, err = t.settled(ctx, after, ask)
	}
	if err != nil {
		return Stats{}, err
	}
	return after.since(before, run)
}

// complete returns an error if a live replica is missing.
func (s Stats) complete() error {
	switch {
	case s.Missing == 1:
		return errors.New("fleetcall: a live replica does not tell its statistics")
	case s.Missing > 1:
		return fmt.Errorf("fleetcall: %d live replicas do not tell their statistics", s.Missing)
	}
	return nil
}

// matches returns an error unless the statistics are those of the same replicas as
// before, and include every replica that responded during the run.
func (s Stats) matches(before Stats, run *Result) error {
	names := s.names()
	silent := slices.DeleteFunc(slices.Sorted(maps.Keys(run.Replicas)), func(name string) bool {
		return name == others || slices.Contains(names, name)
	})
	switch {
	case len(silent) > 0:
		return fmt.Errorf("fleetcall: %s answered, but the statistics are of %s alone%s", list(silent), list(names), s.note())
	case !slices.Equal(names, before.names()):
		return fmt.Errorf("fleetcall: the statistics are of %s, and before the load they were of %s%s", list(names), list(before.names()), s.note())
	case s.Note != "" && len(run.Replicas) == 0:
		return fmt.Errorf("fleetcall: no answer says which replica it is from, and the statistics are of %s alone%s", list(names), s.note())
	}
	return nil
}

func (s Stats) note() string {
	if s.Note == "" {
		return ""
	}
	return " (" + strings.TrimSuffix(printable(s.Note), ".") + ")"
}

// byName returns the replicas sorted by name. Of two with one name, the older one comes
// first.
func (s Stats) byName() []Stats {
	return slices.SortedFunc(slices.Values(s.Replicas), func(a, b Stats) int {
		return cmp.Or(strings.Compare(a.Replica, b.Replica), cmp.Compare(b.Uptime, a.Uptime))
	})
}

// names returns the names of the replicas in the form that a Result has them.
func (s Stats) names() []string {
	var names []string
	for _, r := range s.byName() {
		names = append(names, printable(r.Replica))
	}
	return names
}

// list joins the first five names.
func list(names []string) string {
	const most = 5
	if len(names) > most {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), len(names)-most)
	}
	return strings.Join(names, ", ")
}

// since returns what the replicas have counted since before. Both must have the same
// replicas.
func (s Stats) since(before Stats, run *Result) (Stats, error) {
	elapsed := s.asked.Sub(before.answered)
	earlier := before.byName()
	for i, r := range s.byName() {
		name := printable(r.Replica)
		if r.restarted(earlier[i], elapsed) {
			return Stats{}, fmt.Errorf("fleetcall: %s was started anew during the load", name)
		}
		if r.decreased(earlier[i]) {
			return Stats{}, fmt.Errorf("fleetcall: the statistics of %s were reset during the load", name)
		}
	}
	s.Hits -= before.Hits
	s.Misses -= before.Misses
	s.Errors -= before.Errors
	s.Total -= before.Total
	s.Prevented -= before.Prevented
	s.Database.Queries -= before.Database.Queries
	s.Database.Errors -= before.Database.Errors
	s.Batches = s.Batches.since(before.Batches)
	s.Shadow = s.Shadow.since(before.Shadow)
	s.Tiers.Local = s.Tiers.Local.since(before.Tiers.Local)
	s.Tiers.Distributed = s.Tiers.Distributed.since(before.Tiers.Distributed)
	s.Replicas = nil

	// After a reset, the counts may have grown beyond what they were before, so
	// comparing them is not enough. But each response with a role is a request that was
	// counted, each key of a response for many is a key that was, and each successful response of the normal endpoint, which has no role,
	// is a query. Fewer of them in the counts show the reset.
	none := coalesce.Role(0).String()
	var coalesced int64
	for role, n := range run.Roles {
		if role != none {
			coalesced += int64(n)
		}
	}
	normal := int64(0)
	keys := run.keyCount()
	if coalesced == 0 && run.Roles[none] > 0 {
		normal = int64(run.Statuses[200])
	}
	if s.Total < coalesced || s.Batches.Keys < keys || s.Database.Queries < normal {
		return Stats{}, errors.New("fleetcall: the replicas counted fewer requests than they answered: their statistics were reset during the load")
	}
	return s, nil
}

// restarted reports whether a replica was started after before was measured, which is
// at least elapsed ago.
func (s Stats) restarted(before Stats, elapsed time.Duration) bool {
	// Uptimes have milliseconds, and while NTP corrects them, two machines' clocks may
	// run at speeds that differ by 0.1 %.
	slack := 100*time.Millisecond + elapsed/1000
	return s.Uptime-before.Uptime < (elapsed - slack).Seconds()
}

// decreased reports whether a count is less than before.
func (s Stats) decreased(before Stats) bool {
	counts, earlier := s.counts(), before.counts()
	for i := range counts {
		if counts[i] < earlier[i] {
			return true
		}
	}
	return false
}

func (s Stats) counts() []int64 {
	counts := append([]int64{s.Hits, s.Misses, s.Errors, s.Total, s.Database.Queries, s.Database.Errors}, s.Batches.counts()...)
	for _, tier := range []*TierStats{s.Tiers.Local, s.Tiers.Distributed} {
		if tier == nil {
			tier = &TierStats{}
		}
		counts = append(counts, tier.Requests, tier.Leaders, tier.Unasked, tier.Followers, tier.Cached, tier.Fallbacks, tier.Takeovers, tier.LeaseLost, tier.RedisErrors)
	}
	return counts
}

// since returns what the tier has counted since before. nil means that the tier is off.
func (s *TierStats) since(before *TierStats) *TierStats {
	if s == nil || before == nil {
		return s
	}
	return &TierStats{
		Requests:    s.Requests - before.Requests,
		Leaders:     s.Leaders - before.Leaders,
		Unasked:     s.Unasked - before.Unasked,
		Followers:   s.Followers - before.Followers,
		Cached:      s.Cached - before.Cached,
		Fallbacks:   s.Fallbacks - before.Fallbacks,
		Takeovers:   s.Takeovers - before.Takeovers,
		LeaseLost:   s.LeaseLost - before.LeaseLost,
		RedisErrors: s.RedisErrors - before.RedisErrors,
	}
}
