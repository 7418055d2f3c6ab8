package distributed

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// Each step of the protocol is one script: one round trip, atomic, and safe to
// repeat. Arguments and replies stand at the top of each file.
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

	joinScript    = newScript("join", joinSource)
	peekScript    = newScript("peek", peekSource)
	renewScript   = newScript("renew", renewSource)
	finishScript  = newScript("finish", finishSource)
	abandonScript = newScript("abandon", abandonSource)
	forgetScript  = newScript("forget", forgetSource)

	allScripts = []*script{joinScript, peekScript, renewScript, finishScript, abandonScript, forgetScript}
)

// script is one step.
type script struct {
	*redis.Script
	step string
}

func newScript(step, source string) *script {
	return &script{redis.NewScript(source), step}
}
