package chaos

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/proof/history"
)

// Broken is a way in which a replica breaks a promise on purpose: to see that
// the campaign finds it.
type Broken string

// The ways to be broken.
const (
	// Bypass runs every call's own function and says that it led.
	Bypass Broken = "bypass"
	// Stale gives callers the first value that it ever got for their key.
	Stale Broken = "stale"
	// Swallow loses the returns of some calls.
	Swallow Broken = "swallow"
	// Mix gives keys of a call for many the results of other ones.
	Mix Broken = "mix"
)

// wrap breaks the group; the zero Broken leaves it as it is.
func (b Broken) wrap(group coalesce.Group[string], r *recorder) coalesce.Group[string] {
	if b != Bypass && b != Stale && b != Mix {
		return group
	}
	return &brokenGroup{Group: group, broken: b, recorder: r}
}

type brokenGroup struct {
	coalesce.Group[string]
	broken   Broken
	recorder *recorder
	calls    atomic.Uint64
	old      sync.Map // key → value
}

// Do breaks one call in four.
func (g *brokenGroup) Do(ctx context.Context, key string, fn func(context.Context) (string, error)) (string, coalesce.Role, error) {
	n := g.calls.Add(1)
	if n%4 != 0 || g.broken == Mix {
		value, role, err := g.Group.Do(ctx, key, fn)
		if err == nil {
			g.old.LoadOrStore(key, value)
		}
		return value, role, err
	}
	if g.broken == Bypass {
		return g.bypass(ctx, key, fmt.Sprintf("bypassing-flight-%05d", n), fn)
	}
	if value, ok := g.old.Load(key); ok {
		role := coalesce.RemoteFollower
		if strings.HasPrefix(value.(string), g.recorder.process+"/") {
			role = coalesce.LocalFollower
		}
		return value.(string), role, nil
	}
	return g.Group.Do(ctx, key, fn)
}

// DoMany is broken by Mix alone.
func (g *brokenGroup) DoMany(ctx context.Context, keys []string, fn manyFunc) (map[string]coalesce.Result[string], error) {
	results, err := g.Group.DoMany(ctx, keys, fn)
	if g.broken == Mix && len(results) > 1 {
		first := slices.Min(slices.Collect(maps.Keys(results)))
		for key := range results {
			results[key], results[first] = results[first], results[key]
		}
	}
	return results, err
}

func (g *brokenGroup) bypass(ctx context.Context, key, flight string, fn func(context.Context) (string, error)) (value string, role coalesce.Role, err error) {
	execution := fmt.Sprintf("%s/e%d", g.recorder.process, g.recorder.executions.Add(1))
	record := history.Record{Kind: history.Started, Key: key, Flight: flight, Execution: execution, Role: coalesce.Leader.String()}
	g.recorder.write(record)
	*ctx.Value(flightKey{}).(*string) = flight
	defer func() {
		if recovered := recover(); recovered != nil {
			err = &coalesce.PanicError{Value: recovered}
		}
		record.Kind, record.Role, record.Outcome = history.Ended, "", ended(err)
		g.recorder.write(record)
	}()
	value, err = fn(context.WithValue(ctx, executionKey{}, execution))
	return value, coalesce.Leader, err
}
