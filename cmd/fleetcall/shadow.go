package main

import (
	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalesceprom"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/coalesce/shadow"
)

// shadowed opens the replica's part in a fleet that coalesces nothing, and tells what
// coalescing would save.
func shadowed[V any](r *replica, hooks []distributed.Hook) (coalesce.Group[V], error) {
	fleet, err := shadow.Open(r.redis,
		shadow.WithNamespace(r.set.Namespace),
		shadow.WithMaxAge(r.set.MaxAge),
	)
	if err != nil {
		return nil, err
	}
	r.shadow = fleet
	r.metrics.registry.MustRegister(coalesceprom.NewShadowCollector(fleet.Totals))
	group, err := shadow.NewGroup[V](fleet, r.kind.group)
	if err != nil {
		return nil, err
	}
	return distributed.Observed[V](group, r.kind.group, hooks...)
}

// shadowStats is what /stats says of it.
func (r *replica) shadowStats() api.ShadowStats {
	fleet := r.shadow.Stats()
	st := fleet.Groups[r.kind.group]
	stats := api.ShadowStats{
		Requests:     st.Requests,
		QuerySeconds: st.Time.Seconds(),
		Local:        shadowTier(st.Local),
		Covered:      st.Covered,
		Pending:      st.Pending,
		Sample:       fleet.Sample,
		Seconds: api.ShadowTime{
			Counted: fleet.Seconds.Counted, Unheard: fleet.Seconds.Unheard, Silent: fleet.Seconds.Silent,
			Differing: fleet.Seconds.Differing, Partial: fleet.Seconds.Partial,
		},
	}
	if r.redis != nil {
		tier := shadowTier(st.Distributed)
		stats.Distributed = &tier
	}
	if fleet.Full {
		stats.Sample = 1
	}
	for _, k := range fleet.Hottest {
		stats.Hottest = append(stats.Hottest, api.ShadowKey{
			Key: k.Key, Requests: k.Requests, Local: k.Local, Distributed: k.Distributed, Seconds: k.Time.Seconds(),
		})
	}
	return stats
}

func shadowTier(t shadow.Tier) api.ShadowTier {
	return api.ShadowTier{
		Executions: t.Executions, ExecutionsError: t.ExecutionsError,
		QuerySeconds: t.Time.Seconds(), SecondsError: t.TimeError.Seconds(),
	}
}
