package main

import (
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// TestThePingerSeesAPauseOnce has Redis answer nobody while it sleeps.
func TestThePingerSeesAPauseOnce(t *testing.T) {
	server := redisrig.Start(t, "--enable-debug-command", "yes")
	asked, ask := io.Pipe()
	answers, told := io.Pipe()
	ended := make(chan error)
	go func() { ended <- ping(server.Addr, asked, told) }()
	longest := func() time.Duration {
		value(io.WriteString(ask, "\n"))
		var line [32]byte
		n := value(answers.Read(line[:]))
		return time.Duration(value(strconv.ParseInt(strings.TrimSpace(string(line[:n])), 10, 64)))
	}
	longest()
	const pause = 300 * time.Millisecond
	must(server.Client().Do(t.Context(), "debug", "sleep", pause.Seconds()).Err())
	if saw := longest(); saw < pause/2 {
		t.Errorf("the longest took %v", saw)
	}
	if saw := longest(); saw >= pause/2 {
		t.Errorf("it is told again: %v", saw)
	}
	must(ask.Close())
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
