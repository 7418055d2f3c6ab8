package redislink

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/detached"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// batch is what one goroutine has under way.
type batch struct {
	server   *server
	requests []*Request
	one      [1]*Request // the requests, where there is one alone
	began    time.Time
	heard    uint64         // server.heard when it began
	changes  uint64         // server.changed when it began
	kept     bool           // the goroutine is one of those that are kept
	probe    bool           // it is one
	ctx      detached.Timed // of one that has a single request: ends when that is given up

	// Guarded by server.mu.
	at      int  // where in server.flying; -1: nowhere
	placed  bool // it takes one of the places
	gaveWay bool // it took one, and another has it now
}

// run sends a batch in one round trip. It returns true when b gave way to another.
func (s *server) run(b *batch) (gaveWay bool) {
	if len(b.requests) == 1 {
		r := b.requests[0]
		reply, err := s.runAlone(b, r, patience*r.allowed())
		heard, sign := signOf(err)
		gaveWay = s.landed(b, heard, sign, err)
		r.answer(reply, err)
		return gaveWay
	}
	ctx, cancel := context.WithTimeout(&detached.Context{First: b.requests[0].ctx}, patience*s.link.config.Timeout)
	defer cancel()
	answers := s.send(ctx, s.pieces(b.requests))
	heard, sign, err := worst(answers)
	gaveWay = s.landed(b, heard, sign, err)
	for _, a := range answers {
		a.request.answer(a.reply, a.err)
	}
	return gaveWay
}

// worst returns whether anything came, and the error that says most of the server.
func worst(answers []answer) (heard bool, most sign, err error) {
	for _, a := range answers {
		answered, sign := signOf(a.err)
		heard = heard || answered
		if sign > most {
			most, err = sign, a.err
		}
	}
	return heard, most, err
}

// runAlone sends r by itself. The client may take so long.
func (s *server) runAlone(b *batch, r *Request, limit time.Duration) (any, error) {
	b.ctx.First, b.ctx.Until = r.ctx, b.began.Add(limit)
	cmd := r.command.Cmd(&b.ctx)
	if err := process(func() { _ = s.link.client.Process(&b.ctx, cmd) }); err != nil { // the command has its own
		return nil, err
	}
	return s.loaded(&b.ctx, r.command, cmd)
}

// process calls do, which uses the client, and returns its panic as an error: a hook
// of the client may do anything, and somebody waits for the answer.
func process(do func()) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = fmt.Errorf("fleetcall: panic: %v", value)
		}
	}()
	do()
	return nil
}

func lacksScript(err error) bool { return err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") }

// loaded returns the result of a command that was sent as cmd. If Redis does not have the
// script, it sends the command again with the script's source.
func (s *server) loaded(ctx context.Context, command protocol.Command, cmd redis.Cmder) (any, error) {
	reply, err := protocol.Reply(cmd)
	if !lacksScript(err) {
		return reply, ofScript(err)
	}
	s.heard.Add(1)
	cmd = command.CmdWithSource(ctx)
	if err := process(func() { _ = s.link.client.Process(ctx, cmd) }); err != nil {
		return nil, err
	}
	reply, err = protocol.Reply(cmd)
	return reply, ofScript(err)
}
