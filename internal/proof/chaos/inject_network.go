package chaos

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// spoilMessagesOfOne spoils what Redis publishes to one replica.
func spoilMessagesOfOne(toxic, attribute string, low, high int) func(context.Context, episode, *rand.Rand) error {
	return func(ctx context.Context, e episode, random *rand.Rand) error {
		p := e.places[random.IntN(len(e.places))]
		return e.spoil(ctx, p, toxicOf(p.messages, replies, toxic, map[string]int{attribute: low + random.IntN(high-low)}), random)
	}
}

// spoilRepliesOfOne spoils what Redis answers to one replica. The commands
// arrive and run.
func spoilRepliesOfOne(toxic, attribute string, low, high int) func(context.Context, episode, *rand.Rand) error {
	return func(ctx context.Context, e episode, random *rand.Rand) error {
		p := e.places[random.IntN(len(e.places))]
		return e.spoil(ctx, p, toxicOf(p.commands, replies, toxic, map[string]int{attribute: low + random.IntN(high-low)}), random)
	}
}

// thinLinkOfOne lets few bytes a second through between one replica's commands and Redis.
func thinLinkOfOne(ctx context.Context, e episode, random *rand.Rand) error {
	p := e.places[random.IntN(len(e.places))]
	rate := map[string]int{"rate": 16 + random.IntN(48)} // KB a second
	return e.spoil(ctx, p, func() ([]func() error, error) {
		down, err := p.commands.spoil(replies, "bandwidth", rate)
		if err != nil {
			return nil, err
		}
		up, err := p.commands.spoil(commands, "bandwidth", rate)
		return []func() error{down, up}, err
	}, random)
}

// held is how long a single reply is held up.
const heldFor = 300 * time.Millisecond

// holdReplies holds one in so many replies to any replica.
func holdReplies(oneIn int) func(context.Context, episode, *rand.Rand) error {
	return func(ctx context.Context, e episode, random *rand.Rand) error {
		return e.spoil(ctx, nil, func() (undo []func() error, err error) {
			for _, p := range e.places {
				one, err := p.commands.spoil(replies, "hold", map[string]int{"one_in": oneIn, "hold": int(heldFor.Milliseconds())})
				if err != nil {
					return undo, err
				}
				undo = append(undo, one)
			}
			return undo, nil
		}, random)
	}
}

func toxicOf(way proxy, direction, toxic string, attributes map[string]int) func() ([]func() error, error) {
	return func() ([]func() error, error) {
		undo, err := way.spoil(direction, toxic, attributes)
		return []func() error{undo}, err
	}
}

// spoil spoils the way of one replica, or of all when p is nil, for a while.
func (e episode) spoil(ctx context.Context, p *place, spoiled func() (undo []func() error, err error), random *rand.Rand) error {
	target := ""
	if p != nil {
		target = p.present()
	}
	end := e.begin(target, held{})
	undo, err := spoiled()
	if err != nil {
		return err
	}
	if p == nil {
		e.pause(ctx, between(random, longestSpoiled, 2*longestSpoiled)) // it is rare
	} else {
		e.pause(ctx, between(random, leaseTTL/2, longestSpoiled))
	}
	var errs []error
	for _, one := range undo {
		errs = append(errs, one())
	}
	return errors.Join(append(errs, end())...)
}

// injectNothing is there for what the fleet costs when nothing is broken.
func injectNothing(ctx context.Context, e episode, random *rand.Rand) error {
	e.pause(ctx, 2*leaseTTL) // what the fault before has left behind
	end := e.begin("", held{})
	e.pause(ctx, between(random, longestSpoiled, 2*longestSpoiled))
	return end()
}
