package protocol_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// manies are steps for two callers' keys in one command.
var manies = []situation{
	{
		name: "many/joins",
		says: "Another replica leads one of two keys, and nobody the other.",
		given: func(s *stage) {
			s.lease(another, 0)
			s.counted(another, leaseTTL)
		},
		call: together(joinReply, func(s *stage, names protocol.Names) protocol.Command {
			r := protocol.JoinRequest{Names: names, Settings: &settings, Fresh: true}
			return r.Command()
		}),
	},
	{
		name: "many/finishes",
		says: "Two flights of this replica end. Another one waits for the second.",
		given: func(s *stage) {
			s.lease(this, 0)
			s.counted(this, leaseTTL)
			s.leaseOfOther("1", "0001")
		},
		call: together(finishReply, finishOf),
	},
	{
		name: "many/one-fails",
		says: "The first key's outcome is published by a command that the server has not. The second key has its own reply.",
		given: func(s *stage) {
			s.lease(this, 1)
			s.counted(this, leaseTTL)
			s.leaseOfOther("1", "0001")
		},
		call: together(finishReply, func(s *stage, names protocol.Names) protocol.Command {
			r := finishRequestOf(s, names)
			if names.Channel() == s.names.Channel() {
				r.Publish = "NOPUBLISH"
			}
			return r.Command()
		}),
	},
}

// loadMany has Redis know the script that takes a command's step for many keys.
func (s *stage) loadMany(c protocol.Command) {
	s.t.Helper()
	if c.Shape() == (protocol.Shape{}) {
		return
	}
	many := protocol.Together([]protocol.Command{c, c})
	s.do("SCRIPT", "LOAD", many.CmdWithSource(context.Background()).Args()[1])
	s.scripts[many.Cmd(context.Background()).Args()[1].(string)] = "many of " + c.Step()
}

// leaseOfOther is one that this replica has for the second key.
func (s *stage) leaseOfOther(mark, count string) {
	s.t.Helper()
	lease := strings.Replace(s.other.Channel(), "@0", ":lease", 1)
	s.do("SET", lease, s.real(mark+ofOther+count+" 1 <start> 60000 - replica-a\n"), "PX", leaseTTL.Milliseconds())
}

// finishOf returns a finish whose outcome is its own.
func finishOf(s *stage, names protocol.Names) protocol.Command {
	r := finishRequestOf(s, names)
	return r.Command()
}

func finishRequestOf(s *stage, names protocol.Names) protocol.FinishRequest {
	return protocol.FinishRequest{
		Names: names, Settings: &settings,
		Outcome: []byte("outcome for " + names.Channel()), Publish: "PUBLISH",
		Finished: uint64(s.at(0)),
	}
}

// together is a command for each of the two keys, as one.
func together(tell func(any, error) string, command func(*stage, protocol.Names) protocol.Command) func(*stage) call {
	return func(s *stage) call {
		commands := []protocol.Command{command(s, s.names), command(s, s.other)}
		step := commands[0].Step()
		return call{fmt.Sprintf("Together(%s of p1, %s of p2)", step, step), func() string {
			reply, err := s.Do(context.Background(), protocol.Together(commands))
			if err != nil {
				return "error: " + err.Error()
			}
			replies, errs := protocol.Replies(reply, len(commands))
			return fmt.Sprintf("p1: %s\n  p2: %s", tell(replies[0], errs[0]), tell(replies[1], errs[1]))
		}}
	}
}
