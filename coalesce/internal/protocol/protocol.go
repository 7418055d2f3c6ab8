// Package protocol has the steps by which replicas agree, as typed functions over
// the scripts in lua/, and the names that a caller's key has in Redis.
//
// Each step is one script: one round trip, atomic, and safe to repeat. The scripts
// know their arguments and replies by position; nothing outside this package does.
// docs/protocol.md says what the steps are for, and coalesce/tests/protocol/testdata has
// a transcript of each step in every situation.
package protocol

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"
)

// Command is one step as a command for Redis.
type Command struct {
	script *script
	args   []any // of EVALSHA, that word included
	bytes  int
}

// Doer sends commands.
type Doer interface {
	// Do sends a command to the server of its keys and returns the reply, or an error
	// when there is none.
	Do(ctx context.Context, c Command) (reply any, err error)
}

// Step returns the name of the step: join, peek, renew, finish, abandon, leave,
// forget, count or probe.
func (c Command) Step() string { return c.script.step }

// Key returns the first of its keys. All keys of a command have one hash tag.
func (c Command) Key() string { key, _ := c.args[firstKey].(string); return key }

// Bytes returns about how many bytes of an outcome the command or its reply moves. It is
// 0 when that is not known, or known to be small.
func (c Command) Bytes() int { return c.bytes }

// Cmd returns the command for a server that has the script: EVALSHA. A server that has
// not answers NOSCRIPT.
func (c Command) Cmd(ctx context.Context) *redis.Cmd { return newCmd(ctx, c.args) }

// CmdWithSource returns the command for a server that answered NOSCRIPT: EVAL, which
// brings the script along.
func (c Command) CmdWithSource(ctx context.Context) *redis.Cmd {
	args := make([]any, len(c.args))
	copy(args, c.args)
	args[0], args[1] = "eval", c.script.source
	return newCmd(ctx, args)
}

func newCmd(ctx context.Context, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(firstKey)
	return cmd
}

// Message says what a finish publishes.
type Message string

// What a finish publishes.
const (
	Inline Message = "inline" // the outcome itself
	Notice Message = "notice" // a notice that it is stored
)

// ErrReply is wrapped by the errors of Peek and ParseJoin for a reply that they do not
// know. It can come from a proxy. A join answers so, too, when its flight was abandoned
// before: its caller waits no longer.
var ErrReply = errors.New("fleetcall: unexpected reply")

// A script's reply is a number, or a list whose first element is a word.

func words(reply any, err error) (string, []any, error) {
	if err != nil {
		return "", nil, err
	}
	list, _ := reply.([]any)
	if len(list) == 0 {
		return "", nil, fmt.Errorf("%w: %T", ErrReply, reply)
	}
	word, _ := list[0].(string)
	return word, list[1:], nil
}

func text(list []any, i int) string {
	if i >= len(list) {
		return ""
	}
	s, _ := list[i].(string)
	return s
}

func number(list []any, i int) int64 {
	if i >= len(list) {
		return 0
	}
	n, _ := list[i].(int64)
	return n
}
