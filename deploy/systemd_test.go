package deploy_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var units = []string{"fleetcall.service", "fleetcall-proxy@.service"}

// systemdAnalyze runs it, and returns what it prints.
func systemdAnalyze(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the units are not checked by it")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

// unitOfThisMachine is a copy of a unit whose program exists here.
func unitOfThisMachine(t *testing.T, unit string) string {
	t.Helper()
	content := read(t, filepath.Join("systemd", unit))
	file := filepath.Join(t.TempDir(), strings.Replace(unit, "@.", "@shop.", 1))
	if err := os.WriteFile(file, bytes.ReplaceAll(content, []byte("/usr/bin/fleetcall"), []byte("/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSystemdAcceptsTheUnits(t *testing.T) {
	for _, unit := range units {
		if out, err := systemdAnalyze(t, "verify", unitOfThisMachine(t, unit)); err != nil || strings.Contains(out, "shop.service:") || strings.Contains(out, unit) {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// Of ten, 1.4 are left: what needs the network, and what more would take away from it.
func TestTheUnitsLeaveLittleToAttack(t *testing.T) {
	for _, unit := range units {
		out, err := systemdAnalyze(t, "security", "--offline=yes", "--no-pager", "--threshold=15", unitOfThisMachine(t, unit))
		if strings.Contains(out, "unrecognized option") {
			t.Skip("this systemd-analyze cannot look at a unit that is not running")
		}
		exposure := regexp.MustCompile(`Overall exposure level for \S+: [\d.]+`).FindString(out)
		t.Log(exposure)
		if err != nil || exposure == "" {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// named are the variables that a file of settings has, also those behind a comment sign.
func named(t *testing.T, file string) (names []string) {
	t.Helper()
	lines := bufio.NewScanner(bytes.NewReader(read(t, file)))
	for lines.Scan() {
		if found := regexp.MustCompile(`^#?([A-Z_]+)=`).FindStringSubmatch(lines.Text()); found != nil {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	return names
}

func TestTheUnitsSettingsHaveEveryVariable(t *testing.T) {
	want := append(slices.Clone(variables), "PGPASSWORD")
	slices.Sort(want)
	if got := named(t, "systemd/fleetcall.env"); !slices.Equal(got, want) {
		t.Errorf("fleetcall.env names %v, want %v", got, want)
	}
	known := string(read(t, "../docs/configuration.md"))
	for _, name := range named(t, "systemd/proxy.env.example") {
		if !strings.Contains(known, "`"+name+"`") {
			t.Errorf("proxy.env.example names %s, which is no variable", name)
		}
	}
	// The values are those of the other example.
	example := string(read(t, ".env.example"))
	for line := range strings.Lines(string(read(t, "systemd/fleetcall.env"))) {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") && !strings.Contains(example, "\n"+line) {
			t.Errorf("%s has another value in .env.example", name)
		}
	}
}

func TestSystemdGivesAReplicaTheTimeThatItsShutdownTakes(t *testing.T) {
	for _, unit := range units {
		content := string(read(t, filepath.Join("systemd", unit)))
		found := regexp.MustCompile(`(?m)^TimeoutStopSec=(\S+)$`).FindStringSubmatch(content)
		if found == nil {
			t.Fatalf("%s has no TimeoutStopSec", unit)
		}
		// The defaults are no delay and ten seconds; docs/operating.md gives a delay of 12.
		if given, err := time.ParseDuration(found[1]); err != nil || given < 12*time.Second+10*time.Second+5*time.Second {
			t.Errorf("%s gives %s, %v", unit, given, err)
		}
		if !strings.Contains(content, "\nLimitNOFILE=65536\n") {
			t.Errorf("%s allows fewer connections than compose", unit)
		}
	}
}
