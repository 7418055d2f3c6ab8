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
	"strings"

	"github.com/redis/go-redis/v9"
)

// Command is one step as a command for Redis, or a plain command: for a piece of a large
// outcome, or a notice to all.
type Command struct {
	script *script
	plain  string // the name of a command that runs no script; "": it runs one
	args   []any  // of EVALSHA, that word included; of a plain one, all
	bytes  int
	into   []byte // where the reply goes; nil: into the command
}

// Doer sends commands.
type Doer interface {
	// Do sends a command to the server of its keys and returns the reply, or an error
	// when there is none.
	Do(ctx context.Context, c Command) (reply any, err error)
}

// Step returns the name of the step: join, peek, renew, finish, abandon, leave,
// forget or probe; of a plain command, store, fetch, expire or tell.
func (c Command) Step() string {
	if c.plain != "" {
		return c.plain
	}
	return c.script.step
}

// Key returns the first of its keys. All keys of a command have one hash tag.
func (c Command) Key() string { key, _ := c.args[c.firstKey()].(string); return key }

func (c Command) firstKey() int {
	if c.plain != "" {
		return 1
	}
	return firstKey
}

// Bytes returns about how many bytes of an outcome the command or its reply moves. It is
// 0 when that is not known, or known to be small.
func (c Command) Bytes() int { return c.bytes }

// Cmd returns the command for the client: EVALSHA, or a plain one. A server that has not
// the script answers NOSCRIPT.
func (c Command) Cmd(ctx context.Context) redis.Cmder {
	if c.into != nil {
		return redis.NewZeroCopyStringCmd(ctx, c.into, c.args...)
	}
	return c.cmd(ctx, c.args)
}

// Scripted says whether the command runs a script, so that a server may not have it.
func (c Command) Scripted() bool { return c.plain == "" }

// CmdWithSource returns a command that is Scripted for a server that answered NOSCRIPT:
// EVAL, which brings the script along.
func (c Command) CmdWithSource(ctx context.Context) redis.Cmder {
	args := make([]any, len(c.args))
	copy(args, c.args)
	args[0], args[1] = "eval", c.script.source
	return c.cmd(ctx, args)
}

func (c Command) cmd(ctx context.Context, args []any) *redis.Cmd {
	cmd := redis.NewCmd(ctx, args...)
	cmd.SetFirstKeyPos(int8(c.firstKey()))
	return cmd
}

// Reply returns the reply to what Cmd or CmdWithSource returned, once the client has it.
func Reply(cmd redis.Cmder) (any, error) {
	switch cmd := cmd.(type) {
	case *redis.Cmd:
		return cmd.Result()
	case *redis.ZeroCopyStringCmd:
		switch err := cmd.Err(); {
		case err == redis.Nil:
		case err != nil && strings.HasPrefix(err.Error(), "redis: buffer too small"):
			return -1, nil
		default:
			return cmd.Val(), err
		}
	}
	return nil, nil
}

// ErrReply is wrapped by the errors of Peek and ParseJoin for a reply that they do not
// know. It can come from a proxy.
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
