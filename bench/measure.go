package main

import (
	"runtime"
	"slices"
	"time"
)

// contender is one of those measured in the same run. One round returns one
// figure: smaller or larger is better, but in the same unit for all.
type contender struct {
	name  string
	round func() float64
}

// interleave measures every contender once a round, each round starting with
// the next one, so that whatever disturbs the machine disturbs all alike. It
// returns each one's median.
func interleave(rounds int, contenders []contender) map[string]float64 {
	samples := map[string][]float64{}
	for round := range rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			runtime.GC() // nobody pays for the garbage of the one before
			samples[c.name] = append(samples[c.name], c.round())
		}
	}
	medians := map[string]float64{}
	for name, s := range samples {
		medians[name] = median(s)
	}
	return medians
}

func median(s []float64) float64 { return quantile(s, 0.5) }

// quantile returns the nearest-rank quantile q of s, 0 to 1, and 0 of nothing.
func quantile[T float64 | time.Duration](s []T, q float64) T {
	if len(s) == 0 {
		return 0
	}
	s = slices.Sorted(slices.Values(s))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// perOperation returns the nanoseconds that one of n operations took.
func perOperation(n int, do func()) float64 {
	begin := time.Now()
	do()
	return float64(time.Since(begin).Nanoseconds()) / float64(n)
}
