package distributed

import (
	"errors"
	"fmt"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// fetching reads the payload of a large outcome, which is stored in pieces.
type fetching[V any] struct {
	receiving[V] // the outcome without its payload
	stored       wire.Stored
}

func (s *fetching[V]) run(c *call[V]) state[V] {
	c.batch.settle()
	g := c.g
	if s.stored.Kind == wire.KindValue && !g.reads(s.stored.Outcome) {
		return &s.receiving
	}
	if s.stored.Bytes > g.set.payloadLimit {
		s.outcome.Kind = wire.KindTooLarge
		return &s.receiving
	}
	payload := make([]byte, s.stored.Bytes)
	pieces := wire.Pieces(payload, s.stored.PieceBytes)
	replies, err := g.fleet.link.DoAll(c.ctx, protocol.Fetch(c.names, s.flight, pieces), c.unwanted)
	switch {
	case c.local.Err() != nil:
		return c.end(result[V]{}, c.local.Err())
	case c.deadline.Err() != nil:
		return c.endLate()
	case errors.Is(err, coalesce.ErrClosed):
		return c.end(result[V]{}, err)
	case err != nil:
		return c.withoutRedis(err)
	}
	for i, piece := range pieces {
		switch n, _ := replies[i].(int); {
		case replies[i] == nil:
			return s.gone(c)
		case n < 0:
			g.fleet.garbage.Add(1)
			return s.useless(c, causeGarbage, fmt.Errorf("a piece has more than %d bytes", len(piece)))
		case n != len(piece):
			g.fleet.garbage.Add(1)
			return s.useless(c, causeGarbage, fmt.Errorf("a piece has %d bytes, not %d", n, len(piece)))
		}
	}
	s.outcome.Payload = payload
	return &s.receiving
}

// gone is for an outcome that Redis has dropped since, for want of memory or because this
// replica was stopped for long. The second time, Redis has no room for the key's outcomes,
// and the flights to come would end like that, too: a fleet that joined them would run one
// function after the other.
func (s *fetching[V]) gone(c *call[V]) state[V] {
	if s.role == coalesce.Cached {
		return joining[V]{fresh: true}
	}
	if c.dropped {
		return fallback[V]{causeTooLarge}
	}
	c.dropped, c.vanished = true, s.flight
	return joining[V]{}
}

// unwanted returns why nobody waits for the call any more; nil: somebody does.
func (c *call[V]) unwanted() error {
	select {
	case <-c.g.fleet.abandon:
		return coalesce.ErrClosed
	default:
	}
	if err := c.local.Err(); err != nil {
		return err
	}
	return c.deadline.Err()
}
