package shadow

import (
	"fmt"
	"math"
	"testing"
	"time"
)

// The truth is computed from the recording by code of its own: what a fleet that shares
// every flight would have run.
func TestPredictionOfRecordedZipfLoadsIsWithinFivePercent(t *testing.T) {
	const (
		after  = 6 * time.Second
		length = 30 * time.Second
		mean   = 20 * time.Millisecond
	)
	for _, c := range []struct {
		perSecond float64
		set       settings
	}{
		{500, settings{sample: 64, fullBelow: 2000}},
		{2000, settings{sample: 64, fullBelow: 0}},
		{5000, settings{sample: 64, fullBelow: 0}},
		{5000, settings{sample: 16, fullBelow: 0}},
	} {
		t.Run(fmt.Sprintf("%.0f calls a second, sample %d, full below %d", c.perSecond, c.set.sample, c.set.fullBelow), func(t *testing.T) {
			load := zipf(3, 3, 100_000, c.perSecond, length, mean)
			got, seconds := predicted(t, load, after, c.set)
			calls, all := 0, time.Duration(0)
			for _, call := range load {
				if call.at >= after {
					calls++
					all += call.takes
				}
			}
			local, localTime := load.flights(after, false)
			shared, sharedTime := load.flights(after, true)
			within := func(what string, got, want, limit float64) {
				t.Helper()
				t.Logf("%s: %.1f predicted, %.1f true: %+.2f %%", what, got, want, 100*(got/want-1))
				if math.Abs(got/want-1) > limit {
					t.Errorf("%s: %.1f predicted, %.1f true", what, got, want)
				}
			}
			requests := float64(got.Requests)
			// Calls that began before the counts did and ended after are some 0.1 %.
			within("executions that local saves", requests-got.Local.Executions, float64(calls-local), 0.02)
			within("executions that distributed saves", requests-got.Distributed.Executions, float64(calls-shared), 0.05)
			within("seconds that local saves", (got.Time - got.Local.Time).Seconds(), (all - localTime).Seconds(), 0.02)
			within("seconds that distributed saves", (got.Time - got.Distributed.Time).Seconds(), (all - sharedTime).Seconds(), 0.05)
			if c.set.fullBelow > 0 && got.Distributed.ExecutionsError != 0 {
				t.Errorf("all keys are followed, and the error is %f", got.Distributed.ExecutionsError)
			}
			if c.set.fullBelow == 0 && got.Distributed.ExecutionsError == 0 {
				t.Error("a sample is followed, and is said to have no error")
			}
			if got.Covered != 1 || seconds.Silent+seconds.Differing+seconds.Partial+seconds.Unheard != 0 {
				t.Errorf("%.3f of the calls are covered, %+v", got.Covered, seconds)
			}
		})
	}
}

// Of many samples, the truth is within two standard errors nineteen times of twenty: here
// the keys have other names, and so another sample, each time.
func TestTheTruthIsSeldomMoreThanTwoStandardErrorsAway(t *testing.T) {
	const (
		after = 6 * time.Second
		runs  = 12
	)
	beyond := 0
	for run := range uint64(runs) {
		load := zipf(run, 3, 20_000, 2000, 16*time.Second, 30*time.Millisecond)
		for i := range load {
			load[i].key += int(run) * 1_000_000
		}
		got, _ := predicted(t, load, after, settings{sample: 64})
		shared, _ := load.flights(after, true)
		away := (got.Distributed.Executions - float64(shared)) / got.Distributed.ExecutionsError
		t.Logf("%.0f ± %.0f predicted, %d true: %.1f standard errors", got.Distributed.Executions, got.Distributed.ExecutionsError, shared, away)
		if math.Abs(away) > 2 {
			beyond++
		}
	}
	if beyond > 3 { // more than three of twelve have a chance of 0.2 %
		t.Errorf("in %d of %d samples the truth is more than two standard errors away", beyond, runs)
	}
}
