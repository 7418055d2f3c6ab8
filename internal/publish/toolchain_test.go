package publish_test

import (
	"go/version"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

// The library supports the two latest Go releases: the one that go.mod names, and the
// latest that there is.
func TestTheLibraryBuildsWithTheTwoLatestGoReleases(t *testing.T) {
	t.Parallel()
	root := repository(t)
	local := strings.TrimSpace(run(t, root, []string{"GOTOOLCHAIN=local", "GOWORK=off"}, "go", "env", "GOVERSION"))
	minimum := version.Lang(goLine(t, filepath.Join(root, "coalesce", "go.mod")))
	t.Run("the oldest", func(t *testing.T) {
		if version.Lang(local) == minimum {
			buildsWith(t, "local")
			return
		}
		buildsWith(t, latest(t, func(release string) bool { return version.Lang(release) == minimum }))
	})
	t.Run("the latest", func(t *testing.T) {
		release := latest(t, func(string) bool { return true })
		if version.Compare(release, minimum) < 0 {
			t.Fatalf("the latest release is %s, before go.mod's %s", release, minimum)
		}
		buildsWith(t, release)
	})
}

// goLine is what a go.mod says of the Go release that it needs, as go1.26.0.
func goLine(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := modfile.Parse(name, content, nil)
	if err != nil {
		t.Fatal(err)
	}
	return "go" + file.Go.Version
}

// latest asks the module proxy for the latest release for this machine, other than
// betas and release candidates, that is wanted. The test is skipped when nobody answers.
func latest(t *testing.T, wanted func(release string) bool) string {
	t.Helper()
	out, err := command(t.Context(), t.TempDir(), []string{"GOWORK=off"}, "go", "list", "-m", "-versions", "golang.org/toolchain").CombinedOutput()
	if err != nil {
		t.Skipf("the releases of Go cannot be listed here: %v\n%s", err, out)
	}
	release := regexp.MustCompile(`\bv0\.0\.1-(go1\.\d+\.\d+)\.` + runtime.GOOS + `-` + runtime.GOARCH + `(?:\s|$)`)
	var releases []string
	for _, match := range release.FindAllStringSubmatch(string(out), -1) {
		if wanted(match[1]) {
			releases = append(releases, match[1])
		}
	}
	if len(releases) == 0 {
		t.Skipf("the module proxy has no such release of Go for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	return slices.MaxFunc(releases, version.Compare)
}

// buildsWith builds every published module but the root with a toolchain, and vets and
// tests the library, whose own tests need no server. The toolchain that runs this test
// runs the library's tests beside it, and need not do so twice.
func buildsWith(t *testing.T, toolchain string) {
	t.Helper()
	root := repository(t)
	env := []string{"GOTOOLCHAIN=" + toolchain, "GOWORK=off", "CGO_ENABLED=0", "GOFLAGS=-trimpath"}
	library := filepath.Join(root, "coalesce")
	if out, err := command(t.Context(), library, env, "go", "version").CombinedOutput(); err != nil {
		t.Skipf("the toolchain %s cannot be had here: %v\n%s", toolchain, err, out)
	}
	release := strings.TrimSpace(run(t, library, env, "go", "env", "GOVERSION"))
	t.Log(release)
	run(t, library, env, "go", "vet", "./...")
	if release != runtime.Version() {
		run(t, library, env, "go", "test", "./...")
	}
	packages := []string{"build"}
	for _, m := range open(t, root).Published() {
		if m.Folder != "." {
			packages = append(packages, m.Path+"/...")
		}
	}
	run(t, root, append(env, "GOWORK="+filepath.Join(root, "go.work")), "go", packages...)
}
