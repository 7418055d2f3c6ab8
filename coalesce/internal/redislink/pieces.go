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
// for the pieces of other outcomes. DoAll stops at the first error, which is as in Result,
// and when stop, which is called before each and may be nil, returns an error: then it
// returns that. When it returns, all commands that it sent have been answered or given up.
func (l *Link) DoAll(ctx context.Context, commands []protocol.Command, stop func() error) (replies []any, err error) {
	bytes := 0
	for _, command := range commands {
		bytes += command.Bytes()
	}
	moving := l.serverOf(commands[0].Key()).moving
	until := time.Now().Add(Allowed(l.config.Timeout, bytes))
	replies = make([]any, len(commands))
	requests := make([]*Request, len(commands))
	answered := make(chan int, atATime) // never full
	for sent, underWay := 0, 0; ; underWay-- {
		for err == nil && sent < len(commands) && underWay < atATime {
			asked := time.Now()
			moving <- struct{}{}
			until = until.Add(time.Since(asked)) // that was not Redis' fault
			if stop != nil {
				err = stop()
			}
			left := time.Until(until)
			if err == nil && left <= 0 {
				l.Count(kindTimeout)
				err = fmt.Errorf("%w (%s): %w", coalesce.ErrUnavailable, kindTimeout, context.DeadlineExceeded)
			}
			if err != nil {
				<-moving
				break
			}
			i, r := sent, l.NewRequest(ctx, commands[sent])
			r.within = left
			r.Then = func() { <-moving; answered <- i }
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
