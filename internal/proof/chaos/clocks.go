package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The clocks of hosts may differ by hours. Replicas on one machine have one clock, so those of
// a fleet on hosts are a program that is built with another time.Now: it reads from its
// environment how far its clock is off. The monotonic clock, which the history has, is not.

// skewVariable holds in seconds how far the clock of a replica is off.
const skewVariable = "FLEETCALL_CHAOS_CLOCK"

// skews are those of the replicas on hosts, in turn.
var skews = []time.Duration{0, time.Hour, -time.Hour}

// rightNow is in Go's time.Now, and skewNow takes its place; skewRead stands at the file's end.
const (
	rightNow = "sec, nsec, mono := runtimeNow()\n"
	skewNow  = rightNow + "\tsec += clockSkew\n"
	skewRead = `
var clockSkew = func() int64 {
	text, _ := syscall.Getenv("` + skewVariable + `")
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		text = text[1:]
	}
	seconds := int64(0)
	for i := range len(text) {
		seconds = 10*seconds + int64(text[i]-'0')
	}
	if negative {
		return -seconds
	}
	return seconds
}()
`
)

// buildSkewed builds a program into dir that serves replicas, and whose clock may be off. Its
// source is around a directory; "": this one.
func buildSkewed(ctx context.Context, source, dir string) (path string, err error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("chaos: go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	now, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	text := string(now)
	if strings.Count(text, rightNow) != 1 || !strings.Contains(text, "\nimport (\n") {
		return "", errors.New("chaos: this Go has another time.Now than the one for which replicas' clocks can be set")
	}
	text = strings.Replace(text, rightNow, skewNow, 1)
	if !strings.Contains(text, "\n\t\"syscall\"\n") {
		text = strings.Replace(text, "\nimport (\n", "\nimport (\n\t\"syscall\"\n", 1)
	}
	changed := filepath.Join(dir, "time.go")
	replaced, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := errors.Join(os.WriteFile(changed, []byte(text+skewRead), 0o600), os.WriteFile(overlay, replaced, 0o600)); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "skewed")
	build := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", path, "github.com/fleetcall/fleetcall/internal/proof/chaos/run")
	build.Dir = source
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("chaos: building a program whose clock may be off: %w\n%s", err, out)
	}
	return path, nil
}

// skewedBy has p run the program that buildSkewed has built.
func (p *place) skewedBy(program string, skew time.Duration) {
	p.program = program
	p.env = append(p.env, skewVariable+"="+strconv.FormatInt(int64(skew/time.Second), 10))
}

// checkClock wants the clock of the process that has just started to be off by so much.
func (p *place) checkClock(skew time.Duration) error {
	text, _, _ := strings.Cut(strings.TrimPrefix(p.output.String(), readyText), "\n")
	seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return fmt.Errorf("chaos: replica %s does not tell its clock: %w", p.name, err)
	}
	if off := time.Unix(seconds, 0).Sub(time.Now().Add(skew)); math.Abs(off.Seconds()) > startLimit.Seconds() {
		return fmt.Errorf("chaos: the clock of replica %s is off by %v, and not by %v", p.name, off+skew, skew)
	}
	return nil
}
