package protocol

import (
	"bytes"
	"fmt"
	"strings"
)

// Shape tells which commands can be sent as one: those of equal shapes. The zero value is
// that of a command which cannot be sent with others.
type Shape struct {
	script     *script
	keys, args int
}

// Shape returns the command's shape.
func (c Command) Shape() Shape {
	if c.script == nil || c.script.many == nil {
		return Shape{}
	}
	keys := c.keys()
	return Shape{c.script, keys, len(c.args) - firstKey - keys}
}

// keys returns how many keys the command has.
func (c Command) keys() int { return c.args[firstKey-1].(int) }

// Together returns one command that does what the commands do, one after the other: a
// script of many keys. There must be one at the least, they must have one shape that is
// not zero, and one server must have all their keys, in whatever slots of a server that
// is in no Cluster. Replies reads the reply.
//
// It costs Redis less than the commands do: it reads what they have in common once, and
// has one script to find, one reply to write and no others' commands between.
func Together(commands []Command) Command {
	first := commands[0]
	shape := first.Shape()
	common := first.args[firstKey+shape.keys:]
	differing := places(commands, common)
	args := make([]any, 0, firstKey+3+shape.args+len(commands)*(shape.keys+len(differing))+len(differing))
	args = append(args, "evalsha", shape.script.many.hash, len(commands)*shape.keys)
	size := 0
	for _, c := range commands {
		args = append(args, c.args[firstKey:firstKey+shape.keys]...)
		size += c.bytes
	}
	args = append(args, shape.keys, shape.args, len(differing))
	for _, place := range differing {
		args = append(args, place+1)
	}
	args = append(args, common...)
	for _, c := range commands {
		own := c.args[firstKey+shape.keys:]
		for _, place := range differing {
			args = append(args, own[place])
		}
	}
	return Command{script: shape.script.many, args: args, bytes: size}
}

// places returns the places of the arguments that are not the same for all commands as in
// first.
func places(commands []Command, first []any) (differing []int) {
	for place := range first {
		for _, c := range commands[1:] {
			if !same(first[place], c.args[len(c.args)-len(first)+place]) {
				differing = append(differing, place)
				break
			}
		}
	}
	return differing
}

func same(a, b any) bool {
	if x, ok := a.([]byte); ok {
		y, ok := b.([]byte)
		return ok && bytes.Equal(x, y)
	}
	if _, ok := b.([]byte); ok {
		return false
	}
	return a == b
}

// Replies returns what each of n commands that were sent Together has for a reply, or an
// error, as if it had been sent by itself.
func Replies(reply any, n int) (replies []any, errs []error) {
	list, _ := reply.([]any)
	replies, errs = make([]any, n), make([]error, n)
	for i := range n {
		if len(list) != n {
			errs[i] = fmt.Errorf("%w: %T with %d replies to %d keys", ErrReply, reply, len(list), n)
		} else if err, failed := list[i].(error); failed {
			errs[i] = err
		} else {
			replies[i] = list[i]
		}
	}
	return replies, errs
}

// manyOf returns the script that takes the step for many keys.
func manyOf(step *script) *script {
	source := sharedClock.Replace(step.source)
	return makeScript(step.step, strings.Replace(manySource, "--[[step]]\n", source, 1))
}

// sharedClock has a step read the clock of many.lua.
var sharedClock = strings.NewReplacer("redis.call('TIME')", "clock()", "call('TIME')", "clock()")
