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
	if err := git(ctx, folder, "init", "--quiet", "--initial-branch=main"); err != nil {
		return err
	}
	for _, setting := range identity {
		if err := git(ctx, folder, "config", setting[0], setting[1]); err != nil {
			return err
		}
	}
	if err := git(ctx, folder, "add", "--all"); err != nil {
		return err
	}
	return git(ctx, folder, "commit", "--quiet", "--message", "The tree under test")
}

// identity is what git has to know in order to commit, on any machine.
var identity = [][2]string{
	{"user.name", "Tests"}, {"user.email", "tests@example.com"}, {"commit.gpgsign", "false"}, {"tag.gpgsign", "false"},
}

func git(ctx context.Context, folder string, args ...string) error {
	if out, err := command(ctx, folder, nil, "git", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("git %v: %w\n%s", args, err, out)
	}
	return nil
}

// committed is a copy of the working tree, all committed. Nobody changes it.
var committed = sync.OnceValues(func() (string, error) {
	folder := filepath.Join(temporary, "committed")
	return folder, copyTree(context.Background(), filepath.Join("..", ".."), folder) // all tests share it
})

// cloneTree makes a clone of committed, which comes from nowhere. Cloning takes a
// fraction of the time that committing every file again would.
func cloneTree(ctx context.Context, folder string) error {
	from, err := committed()
	if err != nil {
		return err
	}
	clone := []string{"clone", "--quiet"}
	for _, setting := range identity {
		clone = append(clone, "--config", setting[0]+"="+setting[1])
	}
	if err := git(ctx, ".", append(clone, from, folder)...); err != nil {
		return err
	}
	return git(ctx, folder, "remote", "remove", "origin")
}

// checkout is a repository with the working tree, all committed.
func checkout(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := cloneTree(t.Context(), folder); err != nil {
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
// out linking the programs, which takes most of that command's time. It also leaves out
// the commit that a program would name as its version: every checkout has another, with
// which every program would be compiled again.
func compiles(t *testing.T, root string, env []string) {
	t.Helper()
	run(t, root, env, "go", "list", "-buildvcs=false", "-export", "work")
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

// moduleCache is the module cache that consumers share. It is empty when the first of
// them begins. The machine's own cannot be taken: it would keep versions of ours that the
// next run makes anew.
func moduleCache() string { return filepath.Join(temporary, "modules") }

// released is the version that the tests release, and at which others get the tree:
// what is compiled for one need not be compiled again for the other.
const released = "v0.2.0"

// published is the working tree as a module proxy.
var published = sync.OnceValues(func() (*publish.Proxy, error) {
	proxy := &publish.Proxy{Folder: filepath.Join(temporary, "proxy"), Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	tree := filepath.Join(temporary, "tree")
	ctx := context.Background() // all tests share it
	if err := cloneTree(ctx, tree); err != nil {
		return nil, err
	}
	return proxy, publish.Stamp(ctx, tree, released, proxy)
})
