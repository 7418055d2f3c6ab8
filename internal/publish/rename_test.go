package publish_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fleetcall/fleetcall/internal/publish"
)

func TestAnotherModulePathStandsEverywhereAndBuilds(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	old := open(t, root)
	const command = "make module-path MODULE=example.com/team/fleetcall"
	documented(t, command)
	run(t, root, []string{"GOFLAGS=-trimpath", "CGO_ENABLED=0"}, "sh", "-ec", command)

	files, err := publish.Files(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(content), old.Path()) {
			t.Errorf("%s still names %s", name, old.Path())
		}
	}

	var want []string
	for _, m := range old.Modules {
		want = append(want, "example.com/team/fleetcall"+strings.TrimPrefix(m.Path, old.Path()))
	}
	// With -trimpath, what another run has compiled is the same in this folder.
	env := []string{"GOWORK=" + filepath.Join(root, "go.work"), "GOFLAGS=-trimpath", "CGO_ENABLED=0"}
	got := strings.Fields(run(t, root, env, "go", "list", "-m"))
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the modules are %v, want %v", got, want)
	}
	compiles(t, root, env)
	run(t, root, env, "go", "vet", "./cmd/fleetcall")
	if unformatted := run(t, root, nil, "gofmt", "-l", "."); unformatted != "" {
		t.Errorf("not formatted:\n%s", unformatted)
	}
}

func TestAModulePathThatNobodyCouldGetIsRefused(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	before := run(t, root, nil, "git", "status", "--porcelain")
	for path, because := range map[string]string{
		"":                            "a module path is needed: make module-path MODULE=",
		"fleetcall":                   "it looks like example.com/team/fleetcall",
		"example.com/team/Fleet call": "it looks like example.com/team/fleetcall",
		"example.com/team/fleet/v2":   "leave out /v2",
		open(t, root).Path():          "already",
	} {
		if err := publish.Rename(t.Context(), root, path); err == nil || !strings.Contains(err.Error(), because) {
			t.Errorf("the path %q: %v, want %q", path, err, because)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "README.md"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := publish.Rename(t.Context(), root, "example.com/team/fleetcall"); err == nil || !strings.Contains(err.Error(), "commit or stash them first") {
		t.Errorf("a tree with changes: %v", err)
	}
	run(t, root, nil, "git", "checkout", "README.md")
	if after := run(t, root, nil, "git", "status", "--porcelain"); after != before {
		t.Errorf("what was refused has changed the tree:\n%s", after)
	}
}

func TestAPathThatOnlyBeginsAlikeIsAnothers(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	path := open(t, root).Path()
	name := filepath.Join(root, "docs", "alike.md")
	if err := os.WriteFile(name, []byte(path+"-go, "+path+"/api, https://"+path+".\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, root, nil, "git", "add", "--all")
	run(t, root, nil, "git", "commit", "--quiet", "--message", "Names alike")
	if err := publish.Rename(t.Context(), root, "example.com/renamed"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if want := path + "-go, example.com/renamed/api, https://example.com/renamed.\n"; string(content) != want {
		t.Errorf("renamed to %q, want %q", content, want)
	}
}
