package local

// Stats counts what a Group did since its first use, or since ResetStats.
type Stats struct {
	Requests      uint64 // calls of Do and DoChan whose context had not ended before
	Leaders       uint64 // calls that started a flight
	Followers     uint64 // calls that joined one
	Errors        uint64 // flights whose function returned an error, panicked or exited
	ActiveFlights int64  // functions running now
	Waiting       int64  // callers waiting now, leaders included
}

// HitRate returns Followers / Requests, 0 to 1; 0 when there were none.
func (s Stats) HitRate() float64 {
	if s.Requests == 0 {
		return 0
	}
	return float64(s.Followers) / float64(s.Requests)
}
