package publish_test

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/publish"
)

// withOrigin is a checkout that has been pushed to a repository of its own.
func withOrigin(t *testing.T) (root, origin string) {
	t.Helper()
	root, origin = checkout(t), t.TempDir()
	run(t, origin, nil, "git", "init", "--quiet", "--bare", "--initial-branch=main")
	run(t, root, nil, "git", "remote", "add", "origin", origin)
	run(t, root, nil, "git", "push", "--quiet", "--set-upstream", "origin", "main")
	return root, origin
}

func TestARelease(t *testing.T) {
	t.Parallel()
	root, origin := withOrigin(t)
	pushed := run(t, root, nil, "git", "ls-remote", origin)
	const command = "make release VERSION=" + released
	documented(t, command)
	platform := runtime.GOOS + "/" + runtime.GOARCH
	env := []string{"PLATFORMS=" + platform, "GOFLAGS=-trimpath", "CGO_ENABLED=0"}
	t.Log(run(t, root, env, "sh", "-ec", command))

	if after := run(t, root, nil, "git", "ls-remote", origin); after != pushed {
		t.Errorf("the release has pushed:\n%s", after)
	}
	if status := run(t, root, nil, "git", "status", "--porcelain"); status != "" {
		t.Errorf("the release has left changes:\n%s", status)
	}
	w := open(t, root)
	var want []string
	for _, m := range w.Published() {
		want = append(want, m.Tag(released))
	}
	slices.Sort(want)
	if tags := strings.Fields(run(t, root, nil, "git", "tag", "--points-at", "HEAD")); !slices.Equal(tags, want) {
		t.Errorf("the release's commit has the tags %v, want %v", tags, want)
	}
	for _, m := range w.Modules {
		mod := run(t, root, nil, "git", "show", released+":"+filepath.ToSlash(filepath.Join(m.Folder, "go.mod")))
		for _, required := range m.Requires {
			if !strings.Contains(mod, required+" "+released) {
				t.Errorf("%s does not require %s %s", m.Path, required, released)
			}
		}
	}
	changelog, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	if heading := fmt.Sprintf("## %s (%s)\n", released, time.Now().UTC().Format(time.DateOnly)); !strings.Contains(string(changelog), heading) {
		t.Errorf("CHANGELOG.md has no heading %q", heading)
	}

	t.Run("work goes on in it", func(t *testing.T) {
		env := []string{"GOWORK=" + filepath.Join(root, "go.work"), "GOFLAGS=-trimpath", "CGO_ENABLED=0"}
		compiles(t, root, env)
		run(t, root, nil, "./scripts/tidy", "-check")
	})
	t.Run("what it delivers", func(t *testing.T) {
		checkDelivery(t, w, filepath.Join(root, "dist"), strings.ReplaceAll(platform, "/", "_"))
	})
	t.Run("anybody makes it anew", func(t *testing.T) { checkReproducible(t, root, env) })
	t.Run("its tags are what the hashes are of", func(t *testing.T) { checkTags(t, w) })
	t.Run("once", func(t *testing.T) { refused(t, root, "exists already", "make", "release", "VERSION="+released) })
}

// checkDelivery checks the files of dist.
func checkDelivery(t *testing.T, w *publish.Workspace, dist, platform string) {
	t.Helper()
	name := "fleetcall_" + released + "_" + platform
	sums, err := os.ReadFile(filepath.Join(dist, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	delivered := map[string][]byte{}
	expected := []string{name + ".cdx.json", name + ".tar.gz"}
	debian, isLinux := strings.CutPrefix(platform, "linux_")
	if isLinux {
		debian = "fleetcall_" + strings.TrimPrefix(released, "v") + "_" + debian + ".deb"
		expected = append(expected, debian)
	}
	for _, file := range expected {
		content, err := os.ReadFile(filepath.Join(dist, file))
		if err != nil {
			t.Fatal(err)
		}
		delivered[file] = content
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256(content), file); !strings.Contains(string(sums), line) {
			t.Errorf("SHA256SUMS has not %q:\n%s", line, sums)
		}
	}
	checkSBOM(t, w, delivered[name+".cdx.json"])
	folder := t.TempDir()
	files := unpack(t, filepath.Join(dist, name+".tar.gz"), folder)
	if want := []string{"LICENSE", "README.md", "fleetcall"}; !slices.Equal(files, want) {
		t.Errorf("the archive has %v, want %v", files, want)
	}
	checkBinary(t, w, filepath.Join(folder, "fleetcall"))
	if _, err := exec.LookPath("dpkg-deb"); isLinux && err == nil {
		checkPackage(t, filepath.Join(dist, debian), filepath.Join(folder, "fleetcall"))
	}
}

// checkReproducible lets somebody else, in another folder, make the files of the release,
// and checks that they are the same.
func checkReproducible(t *testing.T, root string, env []string) {
	const command = "make dist VERSION=" + released
	documented(t, command)
	other := filepath.Join(t.TempDir(), "other")
	run(t, ".", nil, "git", "clone", "--quiet", root, other)
	t.Log(run(t, other, env, "sh", "-ec", command))
	run(t, ".", nil, "diff", "-r", filepath.Join(root, "dist"), filepath.Join(other, "dist"))
}

// checkPackage checks that the Debian package has the binary of the archive.
func checkPackage(t *testing.T, name, binary string) {
	t.Helper()
	if version := run(t, ".", nil, "dpkg-deb", "--field", name, "Version"); version != strings.TrimPrefix(released, "v")+"\n" {
		t.Errorf("the package's version is %q", version)
	}
	folder := t.TempDir()
	run(t, ".", nil, "dpkg-deb", "--extract", name, folder)
	run(t, ".", nil, "cmp", binary, filepath.Join(folder, "usr", "bin", "fleetcall"))
}

// checkSBOM checks that the SBOM is of the release, and names what is in the binary.
func checkSBOM(t *testing.T, w *publish.Workspace, content []byte) {
	t.Helper()
	var sbom struct {
		BOMFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(content, &sbom); err != nil {
		t.Fatal(err)
	}
	if main := sbom.Metadata.Component; sbom.BOMFormat != "CycloneDX" || main.Name != w.Path() || main.Version != released {
		t.Errorf("the SBOM is in the format %q, of %+v", sbom.BOMFormat, main)
	}
	for _, module := range []string{"github.com/redis/go-redis/v9", w.Path() + "/coalesce"} {
		if !slices.ContainsFunc(sbom.Components, func(c struct{ Name, Version string }) bool { return c.Name == module }) {
			t.Errorf("the SBOM does not name %s", module)
		}
	}
}

// checkBinary checks that the binary is of the release, and all of ours in it.
func checkBinary(t *testing.T, w *publish.Workspace, binary string) {
	t.Helper()
	folder := filepath.Dir(binary)
	if out := run(t, folder, nil, binary, "version"); !strings.HasPrefix(out, "fleetcall "+released+" ") {
		t.Errorf("fleetcall version prints %q", out)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(run(t, folder, nil, "go", "version", "-m", binary))
	if info.Main.Path != w.Path() || info.Main.Version != released {
		t.Errorf("the binary is of %s %s", info.Main.Path, info.Main.Version)
	}
	for _, dep := range info.Deps {
		if strings.HasPrefix(dep.Path, w.Path()+"/") && dep.Version != released {
			t.Errorf("the binary has %s %s in it", dep.Path, dep.Version)
		}
		if dep.Replace != nil {
			t.Errorf("the binary has a replacement of %s in it", dep.Path)
		}
	}
}

// unpack unpacks an archive, and returns the names of its files in order.
func unpack(t *testing.T, name, folder string) (files []string) {
	t.Helper()
	packed, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	archive := tar.NewReader(plain)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			slices.Sort(files)
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, header.Name), content, header.FileInfo().Mode()); err != nil {
			t.Fatal(err)
		}
		files = append(files, header.Name)
	}
}

// checkTags lets the go command fetch the modules from the repository itself, as it
// does once the tags are pushed, and compares what it gets with the hashes in go.sum.
func checkTags(t *testing.T, w *publish.Workspace) {
	if !strings.HasPrefix(w.Path(), "github.com/") {
		t.Skip("the go command asks the host of " + w.Path() + " where its repository is, and there is none")
	}
	var sums strings.Builder
	for _, m := range w.Modules {
		content, err := os.ReadFile(filepath.Join(w.Root, m.Folder, "go.sum"))
		if err != nil {
			t.Fatal(err)
		}
		sums.Write(content)
	}
	home := t.TempDir()
	cache := strings.TrimSpace(run(t, home, nil, "go", "env", "GOMODCACHE"))
	upstream := strings.TrimSpace(run(t, home, nil, "go", "env", "GOPROXY"))
	env := []string{
		"GOWORK=off", "GOFLAGS=-modcacherw -mod=readonly", "GOMODCACHE=" + filepath.Join(home, "modules"),
		"GOPROXY=" + publish.CacheURL(cache) + "," + upstream, "GONOPROXY=" + w.Path(), "GOSUMDB=off",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url.file://" + w.Root + ".insteadOf", "GIT_CONFIG_VALUE_0=https://" + w.Path(),
	}
	for _, m := range w.Published() {
		var got struct{ Sum, GoModSum string }
		if err := json.Unmarshal([]byte(run(t, home, env, "go", "mod", "download", "-json", m.Path+"@"+released)), &got); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{m.Path + " " + released + " " + got.Sum, m.Path + " " + released + "/go.mod " + got.GoModSum} {
			requiredByNone := !slices.ContainsFunc(w.Modules, func(other publish.Module) bool { return slices.Contains(other.Requires, m.Path) })
			if !requiredByNone && !strings.Contains(sums.String(), line+"\n") {
				t.Errorf("no go.sum has %s", line)
			}
		}
		// Each go.sum has all that its module needs; the go command refuses it else.
		folder := filepath.Join(w.Root, m.Folder)
		run(t, folder, env, "go", "list", "-m", "all")
		if m.Folder != "." { // whose many modules take long to unpack, and are in the binary
			run(t, folder, env, "go", "list", "-deps", "./...")
		}
	}
}

func TestAReleaseThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	before := run(t, root, nil, "git", "rev-parse", "HEAD")
	try := func(version, because string) {
		t.Helper()
		release := publish.Release{Version: version, Date: time.Now(), Platforms: publish.Platforms, Log: io.Discard}
		if err := release.Make(t.Context(), root); err == nil || !strings.Contains(err.Error(), because) {
			t.Errorf("a release %q: %v, want %q", version, err, because)
		}
	}
	try("", "a version is needed: make release VERSION=v0.2.0")
	try("0.2.0", "it looks like v0.2.0")
	try("v0.2", "it looks like v0.2.0")
	try("v0.2.0+linux", "it looks like v0.2.0")
	try("v2.0.0", "releases are below v2")
	for _, m := range open(t, root).Published() {
		run(t, root, nil, "git", "tag", m.Tag("v0.3.0"))
		try("v0.3.0", "the tag "+m.Tag("v0.3.0")+" exists already")
		run(t, root, nil, "git", "tag", "--delete", m.Tag("v0.3.0"))
	}
	if err := os.WriteFile(filepath.Join(root, "new.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	try("v0.2.0", "commit or stash them first")
	if after := run(t, root, nil, "git", "rev-parse", "HEAD"); after != before {
		t.Error("what was refused has made a commit")
	}
	if tags := run(t, root, nil, "git", "tag"); tags != "" {
		t.Errorf("what was refused has made tags: %s", tags)
	}
}

// interruption cancels when a line is logged.
type interruption struct {
	line   string
	cancel context.CancelFunc
}

func (i interruption) Write(b []byte) (int, error) {
	if string(b) == i.line+"\n" {
		i.cancel()
	}
	return len(b), nil
}

func TestAReleaseThatIsInterruptedLeavesTheRepositoryAsItWas(t *testing.T) {
	t.Parallel()
	root := checkout(t)
	before := run(t, root, nil, "git", "rev-parse", "HEAD")
	ctx, cancel := context.WithCancel(t.Context())
	release := publish.Release{
		Version: released, Date: time.Now(), Platforms: publish.Platforms,
		Log: interruption{"tag " + released, cancel}, // the last tag, behind the commit and the others
	}
	if err := release.Make(ctx, root); !errors.Is(err, context.Canceled) {
		t.Errorf("the interrupted release: %v", err)
	}
	if after := run(t, root, nil, "git", "rev-parse", "HEAD"); after != before {
		t.Error("the release that failed has left its commit")
	}
	if tags := run(t, root, nil, "git", "tag"); tags != "" {
		t.Errorf("the release that failed has left its tags: %s", tags)
	}
}
