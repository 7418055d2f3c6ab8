package architecture

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// module is the path that every module of this repository begins with.
const module = "github.com/fleetcall/fleetcall"

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Name, Dir, Export string
	GoFiles                       []string
	Imports                       []string
}

// goList returns the packages that go list prints for these arguments.
func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	args = append([]string{"list", "-json=ImportPath,Name,Dir,Export,GoFiles,Imports"}, args...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	var packages []goPackage
	decoder := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		t.Fatalf("go %s lists no package", strings.Join(args, " "))
	}
	return packages
}

// root returns the repository's folder: the one that has go.work.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no folder above this test has a go.work")
		}
		dir = filepath.Dir(dir)
	}
}

// short returns an import path as the tables of these tests have it: without the
// module's path where it is this repository's.
func short(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// ours reports whether an import path is this repository's.
func ours(importPath string) bool {
	return importPath == module || strings.HasPrefix(importPath, module+"/")
}

// matches reports whether a short import path is one of the patterns, which end in
// /... for a package with all below it, as go list has it.
func matches(name string, patterns ...string) bool {
	for _, pattern := range patterns {
		prefix, tree := strings.CutSuffix(pattern, "/...")
		if name == prefix || tree && strings.HasPrefix(name, prefix+"/") {
			return true
		}
	}
	return false
}

// has reports whether one of the path's folders has this name.
func has(importPath, folder string) bool {
	for dir := importPath; dir != "." && dir != "/"; dir = path.Dir(dir) {
		if path.Base(dir) == folder {
			return true
		}
	}
	return false
}

func TestPatternsMatchAsThoseOfGoList(t *testing.T) {
	for _, c := range []struct {
		name, pattern string
		want          bool
	}{
		{"api", "api", true},
		{"api", "api/...", true},
		{"api/x/y", "api/...", true},
		{"apiary", "api/...", false},
		{"api/x", "api", false},
	} {
		if got := matches(c.name, c.pattern); got != c.want {
			t.Errorf("%s and %s: %v", c.name, c.pattern, got)
		}
	}
	if !has("a/internal/b", "internal") || has("a/internals/b", "internal") {
		t.Error("a folder is found where it is not, or is not where it is")
	}
}
