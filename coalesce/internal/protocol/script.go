package protocol

import (
	"embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed lua
var sources embed.FS

// Arguments and replies stand at the top of each file.
var (
	manySource = readScript("many") // around a step, for many keys

	joinScript    = newScript("join").forMany()
	peekScript    = newScript("peek").forMany()
	renewScript   = newScript("renew").forMany()
	finishScript  = newScript("finish").forMany()
	abandonScript = newScript("abandon").forMany()
	leaveScript   = newScript("leave").forMany()
	forgetScript  = newScript("forget").forMany()
	probeScript   = newScript("probe")
)

// script is one step.
type script struct {
	*redis.Script
	step   string
	source string
	hash   any     // of source
	many   *script // takes the step for many keys; nil: there is none
}

func newScript(step string) *script { return makeScript(step, readScript(step)) }

func makeScript(step, source string) *script {
	s := redis.NewScript(source)
	return &script{Script: s, step: step, source: source, hash: s.Hash()}
}

// forMany lets commands of the step be sent Together.
func (s *script) forMany() *script {
	s.many = manyOf(s)
	return s
}

func readScript(name string) string {
	source, err := sources.ReadFile("lua/" + name + ".lua")
	if err != nil {
		panic(fmt.Sprintf("fleetcall: script %s: %v", name, err)) // it is compiled in
	}
	return string(source)
}

// firstKey is the place of the first key among the arguments of EVALSHA: before
// it are that word, the script's hash and the number of keys.
const firstKey = 3

// command returns the command that runs the script.
func (s *script) command(bytes int, keys []string, args ...any) Command {
	all := make([]any, 0, firstKey+len(keys)+len(args))
	all = append(all, "evalsha", s.hash, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	return Command{script: s, args: append(all, args...), bytes: bytes}
}
