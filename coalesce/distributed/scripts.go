package distributed

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// Each step of the protocol is one script, and so is the breaker's probe: one
// round trip, atomic, and safe to repeat. Arguments and replies stand at the top of each file.
var (
	//go:embed lua/join.lua
	joinSource string
	//go:embed lua/peek.lua
	peekSource string
	//go:embed lua/renew.lua
	renewSource string
	//go:embed lua/finish.lua
	finishSource string
	//go:embed lua/abandon.lua
	abandonSource string
	//go:embed lua/forget.lua
	forgetSource string
	//go:embed lua/probe.lua
	probeSource string

	joinScript    = newScript("join", joinSource)
	peekScript    = newScript("peek", peekSource)
	renewScript   = newScript("renew", renewSource)
	finishScript  = newScript("finish", finishSource)
	abandonScript = newScript("abandon", abandonSource)
	forgetScript  = newScript("forget", forgetSource)
	probeScript   = newScript("probe", probeSource)

	allScripts = []*script{joinScript, peekScript, renewScript, finishScript, abandonScript, forgetScript, probeScript}
)

// script is one step.
type script struct {
	*redis.Script
	step   string
	source string
	hash   any // of source
}

func newScript(step, source string) *script {
	s := redis.NewScript(source)
	return &script{s, step, source, s.Hash()}
}

// firstKey is the place of the first key among the arguments of EVALSHA: before
// it are that word, the script's hash and the number of keys.
const firstKey = 3

// evalsha returns the arguments of a command that runs the script.
func (s *script) evalsha(keys []string, args ...any) []any {
	all := make([]any, 0, firstKey+len(keys)+len(args))
	all = append(all, "evalsha", s.hash, len(keys))
	for _, key := range keys {
		all = append(all, key)
	}
	return append(all, args...)
}
