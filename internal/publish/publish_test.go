package publish_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/publish"
)

// temporary is for what the tests of the package share.
var temporary string

func TestMain(m *testing.M) {
	var err error
	if temporary, err = os.MkdirTemp("", "fleetcall-publish-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(temporary); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// repository is the root of the tree under test.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// copyTree copies the working tree, with what is not committed yet, into a git
// repository of its own at folder.
func copyTree(ctx context.Context, from, folder string) error {
	files, err := publish.Files(ctx, from)
	if err != nil {
		return err
	}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(from, name))
		if err != nil {
			return err
		}
		target := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, info.Mode()); err != nil {
			return err
		}
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--initial-branch=main"},
		{"config", "user.name", "Tests"},
		{"config", "user.email", "tests@example.com"},
		{"config", "commit.gpgsign", "false"},
		{"config", "tag.gpgsign", "false"},
		{"add", "--all"},
		{"commit", "--quiet", "--message", "The tree under test"},
	} {
		if out, err := command(ctx, folder, nil, "git", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("git %v: %w\n%s", args, err, out)
		}
	}
	return nil
}

// checkout is a copy of the working tree, all committed.
func checkout(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := copyTree(t.Context(), repository(t), folder); err != nil {
		t.Fatal(err)
	}
	return folder
}

func open(t *testing.T, root string) *publish.Workspace {
	t.Helper()
	w, err := publish.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// command is one that does not inherit what the go command was told for this test.
func command(ctx context.Context, folder string, env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = folder
	for _, setting := range os.Environ() {
		switch name, _, _ := strings.Cut(setting, "="); name {
		case "GOFLAGS", "GOWORK", "PWD", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS":
		default:
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.Env = append(cmd.Env, "GOFLAGS=", "PWD="+folder)
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// run runs a command to its end, and returns what it prints on standard output.
func run(t *testing.T, folder string, env []string, name string, args ...string) string {
	t.Helper()
	began := time.Now()
	out, err := command(t.Context(), folder, env, name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	t.Logf("%.1fs %s %s", time.Since(began).Seconds(), name, strings.Join(args, " "))
	return string(out)
}

// compiles compiles every package of every module, as go build work does, and leaves
// out linking the programs, which takes most of that command's time.
func compiles(t *testing.T, root string, env []string) {
	t.Helper()
	run(t, root, env, "go", "list", "-export", "work")
}

// refused runs a command that has to fail, and checks that it says why.
func refused(t *testing.T, folder, because string, args ...string) {
	t.Helper()
	out, err := command(t.Context(), folder, nil, args[0], args[1:]...).CombinedOutput()
	if err == nil {
		t.Errorf("%v is not refused:\n%s", args, out)
	}
	if !strings.Contains(string(out), because) {
		t.Errorf("%v does not say %q:\n%s", args, because, out)
	}
}

// documented fails the test when docs/releasing.md does not have the command that the
// test is about to run, as a line of its own.
func documented(t *testing.T, line string) {
	t.Helper()
	for l := range strings.Lines(document(t)) {
		if strings.TrimSpace(l) == line {
			return
		}
	}
	t.Errorf("docs/releasing.md has no line %q", line)
}

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository(t), "docs", "releasing.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// testVersion is the version at which the tests publish the tree.
const testVersion = "v0.1.0-test"

// published is the working tree as a module proxy.
var published = sync.OnceValues(func() (*publish.Proxy, error) {
	proxy := &publish.Proxy{Folder: filepath.Join(temporary, "proxy"), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(temporary, "tree")
	ctx := context.Background() // all tests share it
	if err := copyTree(ctx, root, tree); err != nil {
		return nil, err
	}
	return proxy, publish.Stamp(ctx, tree, testVersion, proxy)
})
