package sourcerig_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fleetcall/fleetcall/internal/rig/sourcerig"
)

// repository makes one with some commits, which is the working directory for the test.
func repository(t *testing.T, lines ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	run(t, "git init --quiet && git config user.name a && git config user.email a@example.com")
	for _, line := range lines {
		run(t, line)
	}
}

func run(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command("sh", "-ec", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func commit(file, text string) string {
	return "echo " + text + " > " + file + " && git add . && git commit --quiet -m " + text
}

func TestTheLastReleaseIsUnpacked(t *testing.T) {
	for _, c := range []struct {
		name, want string
		lines      []string
	}{
		{"the last tag", "two", []string{
			commit("a.lua", "one"), "git tag v0.9.0", commit("a.lua", "two"), "git tag v0.10.0 && git tag coalesce/v0.11.0", commit("a.lua", "three"), "git tag v0.11.0",
		}},
		{"no tag", "one", []string{commit("a.lua", "one"), commit("a.lua", "two"), commit("b.go", "three")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			repository(t, c.lines...)
			dir := t.TempDir()
			last, err := sourcerig.LastRelease(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := sourcerig.Unpack(t.Context(), last, dir); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "a.lua"))
			if err != nil || string(text) != c.want+"\n" {
				t.Errorf("%s has %q, %v; want %q", last, text, err, c.want)
			}
			files, err := os.ReadDir(dir)
			if err != nil || len(files) != 1 {
				t.Errorf("%v, %v", files, err)
			}
		})
	}
}

func TestWithoutHistoryTheErrorSaysSo(t *testing.T) {
	for name, lines := range map[string][]string{
		"one commit": {commit("a.lua", "one")},
		"a shallow clone": {
			commit("a.lua", "one"), commit("a.lua", "two"), commit("b.go", "three"),
			"git clone --quiet --depth 2 \"file://$PWD\" shallow", "mv .git away && mv shallow/.git .git",
		},
		"an archive": {"rm -rf .git"},
	} {
		t.Run(name, func(t *testing.T) {
			repository(t, lines...)
			if last, err := sourcerig.LastRelease(t.Context()); !errors.Is(err, sourcerig.ErrNoHistory) {
				t.Errorf("%q, %v", last, err)
			}
			if err := sourcerig.Unpack(t.Context(), "0123456789", t.TempDir()); !errors.Is(err, sourcerig.ErrNoHistory) {
				t.Errorf("unpacking: %v", err)
			}
		})
	}
}
