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
// take about one round trip together. Only replicas that have a flight of a key are told.
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

// forgetThere forgets keys in Redis, which tells the replicas that have flights of them. It
// returns an error or nil for each.
func (g *Group[V]) forgetThere(ctx context.Context, keys []string) []error {
	f := g.fleet
	commands, all := make([]protocol.Command, len(keys)), make([]protocol.Names, len(keys))
	for i, key := range keys {
		names := protocol.NewNames(g.space, key)
		all[i] = names
		commands[i] = protocol.ForgetRequest{
			Names: names, Settings: &g.args, Namespace: f.set.namespace,
			Notice:  wire.Forget{Group: g.name, Key: key}.Encode(),
			Message: wire.Outcome{Kind: wire.KindForgotten, Flight: names.Flight()}.Encode(),
			Publish: f.subs.PublishCommand(),
		}.Command()
	}
	if g.adaptive != nil {
		commands = append(commands, g.adaptive.forgotten(g.name, keys))
	}
	replies, errs := g.sendAll(ctx, commands)
	if g.adaptive != nil {
		replies, errs = replies[:len(keys)], unheard(errs)
	}
	var expire []protocol.Command
	for i, reply := range replies {
		expire = append(expire, g.expire(all[i], protocol.Forgotten(reply))...)
	}
	for some := range slices.Chunk(expire, forgetTogether) {
		_, _ = g.sendAll(ctx, some) // otherwise they go when MaxAge has passed
	}
	return errs
}

// unheard returns the errors of keys: where the last command failed, which told the other
// replicas of all of them, each has one.
func unheard(errs []error) []error {
	last := len(errs) - 1
	for i := range last {
		if errs[i] == nil {
			errs[i] = errs[last]
		}
	}
	return errs[:last]
}

// expire returns what lets the pieces of a large outcome go that MaxAge had kept.
func (g *Group[V]) expire(names protocol.Names, notice string) []protocol.Command {
	o, err := wire.Decode(notice)
	if err != nil {
		return nil
	}
	stored, err := o.Stored()
	if err != nil || stored.Bytes > g.set.payloadLimit {
		return nil
	}
	return protocol.Expire(names, &g.args, stored.Flight, stored.Pieces())
}

// sendAll sends commands and waits for all replies.
func (g *Group[V]) sendAll(ctx context.Context, commands []protocol.Command) ([]any, []error) {
	f := g.fleet
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
	replies, errs := make([]any, len(commands)), make([]error, len(commands))
	for i, r := range requests {
		func() {
			defer f.survive()
			replies[i], errs[i] = r.Reply() // if a hook panics, which is not told of the others then
			replies[i], errs[i] = f.link.Result(r)
		}()
	}
	return replies, errs
}

func (c *core[V]) forgetHere(key string) {
	c.local.Forget(strings.Clone(key)) // it may be a part of a longer message
}
