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

	joinScript    = redis.NewScript(joinSource)
	peekScript    = redis.NewScript(peekSource)
	renewScript   = redis.NewScript(renewSource)
	finishScript  = redis.NewScript(finishSource)
	abandonScript = redis.NewScript(abandonSource)
	forgetScript  = redis.NewScript(forgetSource)

	allScripts = []*redis.Script{joinScript, peekScript, renewScript, finishScript, abandonScript, forgetScript}
)
