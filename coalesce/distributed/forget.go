package distributed

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce"
)

// A control message is: version, kind, length of the sender's instance id,
// that id, the caller's key.
const controlForget = 'f'

// Forget makes callers that come after it start a new flight: on this replica
// from its return, on the others from the moment its notice arrives. Callers
// that already wait keep their flight. What MaxAge has kept is dropped.
//
// An error means that Redis could not be told, or told in time; this replica
// has forgotten the key all the same.
func (g *Group[V]) Forget(ctx context.Context, keys ...string) error {
	var errs []error
	for _, key := range keys {
		errs = append(errs, g.forget(ctx, key))
	}
	return errors.Join(errs...)
}

func (g *Group[V]) forget(ctx context.Context, key string) error {
	if err := g.enter(); err != nil {
		return err
	}
	defer g.leave()
	k := newKeys(g.set.namespace, key)
	notice := string([]byte{wireVersion, controlForget, byte(len(g.instance))}) + g.instance + key
	_, err := g.redis.mustRun(ctx, forgetScript, []string{k.lease(), k.latest(), k.attempts()},
		k.detachments(), controlChannel(g.set.namespace), notice)
	// Last, because a caller that came before the lease was dropped may have
	// joined it and be in the local tier now.
	g.local.Forget(key)
	if err != nil {
		return fmt.Errorf("fleetcall: forgetting a key on the other replicas: %w", err)
	}
	return nil
}

func (g *Group[V]) control(payload string) {
	if len(payload) < 3 || payload[0] != wireVersion || payload[1] != controlForget {
		g.garbage.Add(1)
		return
	}
	instance := int(payload[2])
	if len(payload) < 3+instance {
		g.garbage.Add(1)
		return
	}
	if payload[3:3+instance] == g.instance {
		return // Forget did it before it returned; again would split the new flight
	}
	g.local.Forget(strings.Clone(payload[3+instance:]))
}

// connected loads the scripts, which a restart of Redis loses, and forgets what
// a Forget may have named while the connection was lost.
func (g *Group[V]) connected() {
	if g.connectedOnce {
		g.local.ForgetAll()
	}
	g.connectedOnce = true
	if g.enter() == nil {
		go func() {
			defer g.leave()
			g.redis.load(context.Background())
		}()
	}
}

var _ coalesce.Group[any] = (*Group[any])(nil)
