package redislink

import (
	"context"
	"fmt"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// atATime is how many of DoAll's commands are under way: while the server has one, the
// next is on its way. More would not make it faster, and would hold up others for longer.
const atATime = 2

// maxMoving is how many of DoAll's commands are under way to a server in all: so many large
// outcomes at once leave the connections of the client's pool to the small commands.
const maxMoving = 4

// DoAll sends commands that move the pieces of one large outcome, a few at a time, and
// returns their replies in order. There must be one, and all must be of one key. Together
// they may take as long as one command that moves it all (see Allowed), besides their wait
// for the pieces of other outcomes, for as long as the server answers. DoAll stops at the
// first error, which is as in Result, and when stop, which is called before each, and now and
// then while one waits for its turn, and may be nil, returns an error: then it returns that.
// When it returns, all commands that it sent have been answered or given up.
func (l *Link) DoAll(ctx context.Context, commands []protocol.Command, stop func() error) (replies []any, err error) {
	bytes := 0
	for _, command := range commands {
		bytes += command.Bytes()
	}
	if stop == nil {
		stop = func() error { return nil }
	}
	server := l.serverOf(commands[0].Key())
	until := time.Now().Add(Allowed(l.config.Timeout, bytes))
	replies = make([]any, len(commands))
	requests := make([]*Request, len(commands))
	answered := make(chan int, atATime) // never full
	for sent, underWay := 0, 0; ; underWay-- {
		for err == nil && sent < len(commands) && underWay < atATime {
			var moves bool
			until, moves, err = server.move(until, stop)
			left := time.Until(until)
			if err == nil && (!moves || left <= 0) {
				l.Count(kindTimeout)
				err = fmt.Errorf("%w (%s): %w", coalesce.ErrUnavailable, kindTimeout, context.DeadlineExceeded)
			}
			if err != nil {
				if moves {
					<-server.moving
				}
				break
			}
			i, r := sent, l.NewRequest(ctx, commands[sent])
			r.within = left
			r.Then = func() { <-server.moving; answered <- i }
			requests[i] = r
			l.Send(r)
			sent++
			underWay++
		}
		if underWay == 0 {
			return replies, err
		}
		i := <-answered
		reply, failed := l.Result(requests[i])
		replies[i] = reply
		if err == nil {
			err = failed
		}
	}
}

// move waits until one more piece may be under way, which has time until then. It returns
// until when it has it now: the wait takes none of it, but for how long nothing had come
// from the server at its end. When that is all of the time, move returns false. It returns
// the error of stop, too.
func (s *server) move(until time.Time, stop func() error) (later time.Time, moves bool, err error) {
	select {
	case s.moving <- struct{}{}:
		return until, true, stop()
	default:
	}
	left := time.Until(until)
	look := time.NewTicker(max(left/looks, time.Millisecond))
	defer look.Stop()
	for heard, sign := s.heard.Load(), time.Now(); ; {
		select {
		case s.moving <- struct{}{}:
			moves = true
		case <-look.C:
		}
		if now := s.heard.Load(); now != heard {
			heard, sign = now, time.Now()
		}
		err = stop()
		if until = sign.Add(left); moves || err != nil || time.Until(until) <= 0 {
			return until, moves, err
		}
	}
}
