package distributed_test

import (
	"context"
	"errors"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestAReplicaThatCannotReadALeadersResultDoesNotWaitForIt has replicas of a rolling
// change: the leader's function runs until the others have their results.
func TestAReplicaThatCannotReadALeadersResultDoesNotWaitForIt(t *testing.T) {
	type before struct{ ID int }
	type after struct{ ID, Stock int }
	server := redisrig.Start(t)
	client := server.Client()
	ctx := context.Background()
	old := newGroup[before](t, openFleet(t, server), "products")
	sibling := newGroup[before](t, openFleet(t, server), "products")
	for name, group := range map[string]*distributed.Group[after]{
		"another type":  newGroup[after](t, openFleet(t, server), "products"),
		"another codec": newGroup[after](t, openFleet(t, server), "products", distributed.WithCodec(coalesce.Gob[after]())),
	} {
		t.Run(name, func(t *testing.T) {
			leaving, leave := context.WithCancel(ctx)
			defer leave()
			began := make(chan struct{})
			leads := calling(leaving, old, name, func(ctx context.Context) (before, error) {
				close(began)
				<-ctx.Done()
				return before{}, ctx.Err()
			})
			<-began
			got := comesBack(t, "who cannot read it", calling(ctx, group, name, func(context.Context) (after, error) { return after{7, 12}, nil }))
			if got != (answer[after]{after{7, 12}, coalesce.Fallback, nil}) {
				t.Errorf("it has %+v", got)
			}
			if n := group.Stats().Distributed.Incompatible; n != 1 {
				t.Errorf("it counts %d results as incompatible, not 1", n)
			}
			// Nobody waits for the flight, so its function ends with its caller.
			leave()
			if a := comesBack(t, "the leader", leads); !errors.Is(a.err, context.Canceled) {
				t.Errorf("the leader has %+v", a)
			}
			eventually(t, "the lease is released", func() bool { return leaseOf(client, "products", name) == "" })
		})
	}
	if t.Failed() {
		return // their flights may run on
	}
	if _, f := followed(t, server, old, sibling, "products", func() (before, error) { return before{7}, nil }, func() (before, error) { return before{8}, nil }); f.val.ID != 7 || f.role != coalesce.RemoteFollower {
		t.Errorf("those of one type do not share: %+v", f)
	}
}
