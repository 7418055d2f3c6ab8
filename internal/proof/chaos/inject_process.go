package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// held is a lease that somebody waits for, or else the keys that are hit.
type held struct {
	key, flight string
	keys        []string // nil: all
	leader      *place
}

var leaseValue = regexp.MustCompile(`^1(\S{22})\S* .*?(\S+)\n`)

// leader finds a flight that has followers, at a random moment of its life.
// When Redis does not tell of one, it returns any place and no flight.
func (c *campaign) leader(ctx context.Context, random *rand.Rand) held {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	wait := between(random, 0, leaseTTL/2)
	random = split(random)
	anyone := held{leader: c.places[random.IntN(len(c.places))]}
	for ctx.Err() == nil {
		h, ok := c.heldLease(ctx, random)
		if !ok {
			c.pause(ctx, 2*time.Millisecond)
			continue
		}
		c.pause(ctx, wait)
		if again, ok := c.lease(ctx, h.leader.config, h.key); ok && again.flight == h.flight {
			return again
		}
	}
	return anyone
}

func (c *campaign) heldLease(ctx context.Context, random *rand.Rand) (held, bool) {
	config := c.places[random.IntN(len(c.places))].config
	return c.lease(ctx, config, config.Prefix+fmt.Sprintf("hot-%d", random.IntN(hotKeys)))
}

// lease reads the lease of a key.
func (c *campaign) lease(ctx context.Context, config workerConfig, key string) (held, bool) {
	text, err := c.leases.Get(ctx, config.Namespace+":"+groupName+":{"+key+"}:lease").Result()
	found := leaseValue.FindStringSubmatch(text)
	if err != nil || found == nil {
		return held{}, false
	}
	for _, p := range c.places {
		if p.present() == found[2] {
			return held{key: key, flight: found[1], leader: p}, true
		}
	}
	return held{}, false
}

func killLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	end := e.begin(on.leader.present(), on)
	on.leader.kill()
	e.pause(ctx, between(random, 0, leaseTTL))
	return errors.Join(on.leader.start(), end())
}

func stopLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	return e.stop(ctx, on.leader, on, random)
}

// stopFollower stops any replica but the leader, for up to longer than an
// outcome waits for it in Redis.
func stopFollower(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	others := slices.DeleteFunc(slices.Clone(e.places), func(p *place) bool {
		return p == on.leader || p.config.Namespace != on.leader.config.Namespace
	})
	if len(others) == 0 {
		return nil
	}
	return e.stop(ctx, others[random.IntN(len(others))], on, random)
}

func (e episode) stop(ctx context.Context, p *place, on held, random *rand.Rand) error {
	end := e.begin(p.present(), on)
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	e.pause(ctx, between(random, leaseTTL+300*time.Millisecond, 3*leaseTTL))
	return errors.Join(p.signal(syscall.SIGCONT), end())
}

func shutDownLeader(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	end := e.begin(on.leader.present(), on)
	if err := errors.Join(on.leader.died(), on.leader.stop()); err != nil {
		return err
	}
	return errors.Join(on.leader.start(), end())
}

func needsClock() string { return redisrig.ClockMissing() }

// aStep is by how much Redis' clock is set.
const aStep = time.Hour

// setClockForward has every key of Redis run out at once, and those that are written then
// live for an hour when the clock is right again.
func setClockForward(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	e.clock.Set(aStep)
	e.pause(ctx, between(random, leaseTTL/2, 2*leaseTTL))
	e.clock.Set(0)
	e.pause(ctx, leaseTTL) // what was written before still lives for long
	return end()
}

// setClockBack has what a leader that dies then had in Redis live for an hour more.
func setClockBack(ctx context.Context, e episode, random *rand.Rand) error {
	on := e.leader(ctx, random)
	end := e.begin(on.leader.present(), on)
	e.clock.Set(-aStep)
	on.leader.kill()
	e.pause(ctx, 2*leaseTTL+between(random, 0, leaseTTL))
	e.clock.Set(0)
	return errors.Join(on.leader.start(), end())
}
