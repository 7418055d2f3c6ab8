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

// buildSkewed builds a program into dir that serves replicas, and whose clock may be off, from
// the source around root. env is added to the environment.
func buildSkewed(ctx context.Context, root, dir string, env ...string) (path string, err error) {
	env = append(os.Environ(), env...)
	goroot, err := goEnv(ctx, root, env, "GOROOT")
	if err != nil {
		return "", err
	}
	original := filepath.Join(goroot, "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	text := string(source)
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
	build := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", path, "./internal/proof/chaos/run")
	build.Dir, build.Env = root, append(env, "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("chaos: building a program whose clock may be off: %w\n%s", err, out)
	}
	return path, nil
}

// goEnv returns a variable of the go command, as it is in a directory.
func goEnv(ctx context.Context, dir string, env []string, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "env", name)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("chaos: go env %s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}

// skewedBy has p run the program that buildSkewed has built.
func (p *place) skewedBy(program string, skew time.Duration) {
	p.program = program
	p.env = append(p.env, skewVariable+"="+strconv.FormatInt(int64(skew/time.Second), 10))
}

// checkClock wants the clock of the process that has just started to be off by so much.
func (p *place) checkClock(skew time.Duration) error {
	text, _, _ := strings.Cut(strings.TrimPrefix(p.output.String(), readyText), "\n")
	text = strings.TrimSpace(text)
	if text == "" && p.isOld {
		return nil // releases before the first do not tell their clock
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("chaos: replica %s does not tell its clock: %w", p.name, err)
	}
	if off := time.Unix(seconds, 0).Sub(time.Now().Add(skew)); math.Abs(off.Seconds()) > startLimit.Seconds() {
		return fmt.Errorf("chaos: the clock of replica %s is off by %v, and not by %v", p.name, off+skew, skew)
	}
	return nil
}
