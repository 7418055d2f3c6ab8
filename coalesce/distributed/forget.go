package distributed

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/redislink"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// forgetTogether is how many keys are on their way at a time: enough to fill the
// round trips, and so few that each is sent in time.
const forgetTogether = 512

// Forget makes callers of these keys that come after it start a new flight: on this
// replica from its return, on the others from the moment its notices arrive. Callers
// that already wait keep their flight. What MaxAge has kept is dropped. Up to 512 keys
// take about one round trip together, on a Redis Cluster two.
//
// An error means that Redis could not be told of some of the keys, or not in time; this
// replica has forgotten all of them all the same. When ctx ends first, Forget returns
// ctx.Err(), and goes on in the background.
func (g *Group[V]) Forget(ctx context.Context, keys ...string) error {
	if g.err != nil {
		return g.err
	}
	f := g.fleet
	if err := f.inflight.enter(); err != nil {
		return err
	}
	done := make(chan error, 1)
	f.workers.Run(func() {
		defer f.inflight.leave()
		defer f.survive()
		var failed error
		n := 0
		defer func() {
			// Last, because a caller that came before the lease was dropped may have
			// joined it and be in the local tier now.
			for _, key := range keys {
				g.forgetHere(key)
			}
			if failed != nil {
				failed = fmt.Errorf("fleetcall: forgetting %d of %d keys on the other replicas: %w", n, len(keys), failed)
			}
			done <- failed
		}()
		for some := range slices.Chunk(keys, forgetTogether) {
			for _, err := range g.forgetThere(context.WithoutCancel(ctx), some) {
				if err != nil {
					failed = err
					n++
				}
			}
		}
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	for _, key := range keys {
		g.forgetHere(key)
	}
	return ctx.Err()
}

// forgetThere forgets keys in Redis and on the other replicas, and returns an error or
// nil for each.
func (g *Group[V]) forgetThere(ctx context.Context, keys []string) []error {
	f := g.fleet
	count := protocol.CountRequest{
		Counter: protocol.ForgetCounter(f.set.namespace),
		Channel: protocol.ControlChannel(f.set.namespace, f.database),
	}
	commands := make([]protocol.Command, len(keys))
	for i, key := range keys {
		request := protocol.ForgetRequest{
			Names:   protocol.NewNames(g.space, key),
			Channel: count.Channel,
			Notice:  wire.Forget{Instance: f.instance, Group: g.name, Key: key}.Encode(),
		}
		if f.oneServer {
			request.Counter = count.Counter
		}
		count.Notices = append(count.Notices, request.Notice)
		commands[i] = request.Command()
	}
	replies, errs := f.sendAll(ctx, commands)
	if f.oneServer {
		for i, reply := range replies {
			if errs[i] == nil {
				f.forgets.heardOf(protocol.ParseCount(reply))
			}
		}
		return errs
	}
	replies, failed := f.sendAll(ctx, []protocol.Command{count.Command()})
	last := protocol.ParseCount(replies[0])
	for i := range errs {
		if failed[0] != nil {
			errs[i] = failed[0]
			continue
		}
		f.forgets.heardOf(wire.Count{Began: last.Began, N: last.N - int64(i)})
	}
	return errs
}

// sendAll sends commands at once and waits for all replies. A hook that panics is not
// told of the others' replies, which are counted all the same.
func (f *Fleet) sendAll(ctx context.Context, commands []protocol.Command) (replies []any, errs []error) {
	requests := make([]*redislink.Request, len(commands))
	answered := make(chan struct{}, len(commands))
	for i, command := range commands {
		requests[i] = f.link.NewRequest(ctx, command)
		requests[i].Then = func() { answered <- struct{}{} }
		f.link.Send(requests[i])
	}
	for range requests {
		<-answered
	}
	replies, errs = make([]any, len(requests)), make([]error, len(requests))
	for i, r := range requests {
		func() {
			defer f.survive()
			replies[i], errs[i] = r.Reply() // if a hook panics
			_, errs[i] = f.link.Result(r)
		}()
	}
	return replies, errs
}

func (c *core[V]) forgetHere(key string) {
	c.local.Forget(strings.Clone(key)) // it may be a part of a longer message
}
