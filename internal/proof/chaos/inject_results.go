package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"
)

// dropResults deletes what is stored of results, for a while: a large one may lose some of
// its pieces and keep the others.
func dropResults(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	var errs []error
	for until := time.Now().Add(between(random, leaseTTL, 2*leaseTTL)); time.Now().Before(until) && ctx.Err() == nil; {
		errs = append(errs, e.eachKey(func(ctx context.Context, key string) error {
			if !strings.Contains(key, ":result:") || random.IntN(2) == 0 {
				return nil
			}
			return e.admin.Del(ctx, key).Err()
		}))
		e.pause(ctx, between(random, 0, 5*time.Millisecond))
	}
	return errors.Join(append(errs, end())...)
}

// cutAgainAndAgain closes the connections that have subscribed, as soon as they are there
// again, while many keys are waited for.
func cutAgainAndAgain(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	var errs []error
	for until := time.Now().Add(between(random, leaseTTL, 2*leaseTTL)); time.Now().Before(until) && ctx.Err() == nil; {
		errs = append(errs, e.admin.Do(context.Background(), "CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes").Err())
		e.pause(ctx, between(random, 0, redisTimeout))
	}
	return errors.Join(append(errs, end())...)
}
