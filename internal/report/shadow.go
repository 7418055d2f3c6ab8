package report

import (
	"fmt"

	"github.com/fleetcall/fleetcall/internal/load"
)

// savedRow is what a tier would have saved, as a row of a table.
type savedRow struct{ Queries, Rate, Time string }

// saved returns the row of a tier, which the run of a load in mode shadow has.
func saved(s *load.ShadowStats, tier string) savedRow {
	of := s.Local
	if tier == "distributed" {
		of = *s.Distributed
	}
	queries, seconds := s.Saved(of)
	row := savedRow{Queries: fmt.Sprintf("%.0f", queries), Rate: "–", Time: fmt.Sprintf("%.1f s", seconds)}
	if of.ExecutionsError > 0 {
		row.Queries += fmt.Sprintf(" ± %.0f", of.ExecutionsError)
		row.Time += fmt.Sprintf(" ± %.1f s", of.SecondsError)
	}
	if s.Requests > 0 {
		row.Rate = fmt.Sprintf("%.1f%%", 100*queries/float64(s.Requests))
	}
	return row
}

// firstKeys returns those of the hottest keys that a report shows.
func firstKeys(keys []load.ShadowKey) []load.ShadowKey { return keys[:min(len(keys), 10)] }
