package redisrig

import (
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig"
)

//go:embed testdata/clock.c
var clockSource []byte

// Clock is the clock of one server, which a test sets.
type Clock struct {
	t       testing.TB
	preload string // is loaded into the server
	file    string // says by how much the server's clock is ahead
}

// ClockMissing says what StartOnClock lacks on this machine; "": nothing.
func ClockMissing() string {
	if runtime.GOOS != "linux" {
		return "Linux"
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		return "gcc"
	}
	return ""
}

// StartOnClock starts a redis-server as Start does, on a clock that can be set. It fails
// the test where ClockMissing names something.
func StartOnClock(t testing.TB, args ...string) (*Server, *Clock) {
	t.Helper()
	r := newServer(t, nil, args)
	c, err := newClock(t, rig.TempDir(t, "fleetcall-clock-"))
	if err != nil {
		t.Fatalf("fleetcall: making a server's clock: %v", err)
	}
	r.clock = c
	r.launch()
	return r, c
}

func newClock(t testing.TB, dir string) (*Clock, error) {
	if missing := ClockMissing(); missing != "" {
		return nil, errors.New("it needs " + missing)
	}
	c := &Clock{t: t, preload: filepath.Join(dir, "clock.so"), file: filepath.Join(dir, "ahead")}
	source := filepath.Join(dir, "clock.c")
	if err := os.WriteFile(source, clockSource, 0o600); err != nil {
		return nil, err
	}
	compile := exec.Command("gcc", "-O1", "-shared", "-fPIC", "-o", c.preload, source)
	if output, err := compile.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gcc: %w\n%s", err, output)
	}
	c.Set(0)
	return c, nil
}

// Set sets the server's clock ahead of the machine's, or behind it. Its monotonic clock
// goes on.
func (c *Clock) Set(ahead time.Duration) {
	c.t.Helper()
	file, err := os.OpenFile(c.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		_, err = file.Write(binary.NativeEndian.AppendUint64(nil, uint64(ahead.Microseconds())))
		err = errors.Join(err, file.Close())
	}
	if err != nil {
		c.t.Fatalf("fleetcall: setting a server's clock: %v", err)
	}
}

// environment is that of a server on this clock.
func (c *Clock) environment() []string {
	return append(os.Environ(), "LD_PRELOAD="+c.preload, "FLEETCALL_CLOCK="+c.file)
}
