// Package ratelimit bounds how often something happens, such as a line of the log.
package ratelimit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Keyed allows one event a second for each key, the first at once. It keeps
// a limiter for every key it was ever given, so the keys must be few. The zero value
// is ready to use.
type Keyed struct {
	limiters sync.Map // of *rate.Limiter by key
}

// Allow says whether the event may happen now.
func (k *Keyed) Allow(key string) bool {
	limiter, ok := k.limiters.Load(key)
	if !ok {
		limiter, _ = k.limiters.LoadOrStore(key, rate.NewLimiter(rate.Every(time.Second), 1))
	}
	return limiter.(*rate.Limiter).Allow()
}
