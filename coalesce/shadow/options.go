package shadow

import (
	"fmt"
	"strings"
	"time"
)

// Option changes a setting of a Fleet. Replicas with different settings do not count what
// they would share: the seconds in which they run together are "differing".
type Option func(*settings) error

type settings struct {
	namespace string
	sample    uint64
	fullBelow int
	maxAge    time.Duration
	alone     bool // without Redis
}

// WithNamespace sets the prefix of the Fleet's channel in Redis; the default is
// "fleetcall".
func WithNamespace(namespace string) Option {
	return func(s *settings) error {
		if namespace == "" || strings.ContainsAny(namespace, "{}") {
			return fmt.Errorf("fleetcall: shadow.WithNamespace: %q must not be empty or contain braces", namespace)
		}
		s.namespace = namespace
		return nil
	}
}

// WithSample has the Fleet follow one of n keys, besides the hottest; the default is 64.
// The error grows with the square root of n, and what the replicas tell each other shrinks
// by n. With 1 it follows all keys, however many calls there are.
func WithSample(n int) Option {
	return func(s *settings) error {
		if n < 1 || n > 1<<20 {
			return fmt.Errorf("fleetcall: shadow.WithSample: %d is not between 1 and %d", n, 1<<20)
		}
		s.sample = uint64(n)
		return nil
	}
}

// WithFullBelow has the Fleet follow all keys while no replica makes more calls a second
// than this; the default is 2000. Then there is no sample, and no error of one. A followed
// call takes 8 bytes of a message, or 17 if it is its key's only one in a second. With 0
// there is always a sample.
func WithFullBelow(calls int) Option {
	return func(s *settings) error {
		if calls < 0 || calls > maxEvents/4 {
			return fmt.Errorf("fleetcall: shadow.WithFullBelow: %d is not between 0 and %d", calls, maxEvents/4)
		}
		s.fullBelow = calls
		return nil
	}
}

// WithMaxAge tells what distributed would save with distributed.WithMaxAge of the same
// duration: its results are given out for so long after their flights have ended. The
// default is 0, as there.
func WithMaxAge(d time.Duration) Option {
	return func(s *settings) error {
		if d < 0 {
			return fmt.Errorf("fleetcall: shadow.WithMaxAge: %v is less than 0", d)
		}
		s.maxAge = d
		return nil
	}
}
