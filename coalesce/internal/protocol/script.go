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
	joinScript    = newScript("join")
	peekScript    = newScript("peek")
	renewScript   = newScript("renew")
	finishScript  = newScript("finish")
	abandonScript = newScript("abandon")
	leaveScript   = newScript("leave")
	forgetScript  = newScript("forget")
	probeScript   = newScript("probe")
)

// script is one step.
type script struct {
	*redis.Script
	step   string
	source string
	hash   any // of source
}

func newScript(step string) *script {
	source, err := sources.ReadFile("lua/" + step + ".lua")
	if err != nil {
		panic(fmt.Sprintf("fleetcall: script %s: %v", step, err)) // it is compiled in
	}
	s := redis.NewScript(string(source))
	return &script{s, step, string(source), s.Hash()}
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
