package publish

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Platform is what a binary runs on, as GOOS and GOARCH.
type Platform struct{ OS, Arch string }

// Platforms are those of a release.
var Platforms = []Platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}, {"windows", "amd64"}}

// ParsePlatforms reads platforms as linux/amd64,darwin/arm64; from an empty text, all of
// a release.
func ParsePlatforms(text string) ([]Platform, error) {
	if text == "" {
		return Platforms, nil
	}
	var platforms []Platform
	for name := range strings.SplitSeq(text, ",") {
		system, arch, ok := strings.Cut(name, "/")
		if !ok || system == "" || arch == "" {
			return nil, fmt.Errorf("fleetcall: %q is not a platform; it looks like linux/amd64", name)
		}
		platforms = append(platforms, Platform{system, arch})
	}
	return platforms, nil
}

// Build builds the binaries of the tagged version of the repository at root, whatever
// is checked out, and puts into the folder out: an archive for each platform, for Linux a
// Debian package, what each binary is made of (an SBOM), and the checksums of all. The binaries are those of
//
//	CGO_ENABLED=0 go install -trimpath …/cmd/fleetcall@version
//
// and the same Go release makes them anew to the last bit.
func (r Release) Build(ctx context.Context, root, out string) error {
	if err := checkVersion(r.Version); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "fleetcall-build-")
	if err != nil {
		return fmt.Errorf("fleetcall: building the release: %w", err)
	}
	defer os.RemoveAll(work)
	b := build{Release: r, root: root, work: work, made: filepath.Join(work, "dist")}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, p := range r.Platforms {
		began := time.Now()
		if err := b.platform(ctx, p); err != nil {
			return err
		}
		r.log("built for %s/%s in %s", p.OS, p.Arch, time.Since(began).Round(time.Second/10))
	}
	return deliver(b.made, out)
}

// build is what Build knows while it works.
type build struct {
	Release
	root   string
	work   string // for what is needed while it lasts
	made   string // the folder of what is made
	module string // the root's path
	sums   string // the root's go.sum
	proxy  *Proxy
	tagged time.Time
}

// prepare checks out the tag, and makes a proxy of all modules' tags.
func (b *build) prepare(ctx context.Context) error {
	tree := filepath.Join(b.work, "tree")
	if _, err := git(ctx, b.root, "clone", "--quiet", b.root, tree); err != nil {
		return err
	}
	if _, err := git(ctx, tree, "-c", "advice.detachedHead=false", "checkout", "--quiet", "refs/tags/"+b.Version); err != nil {
		return fmt.Errorf("fleetcall: %s is not released in this repository: %w", b.Version, err)
	}
	seconds, err := git(ctx, tree, "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("fleetcall: reading the release's date: %w", err)
	}
	b.tagged = time.Unix(unix, 0).UTC()
	w, err := Open(tree)
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(w.file(".", "go.sum"))
	if err != nil {
		return fmt.Errorf("fleetcall: reading go.sum: %w", err)
	}
	b.module, b.sums = w.Path(), string(sums)
	b.proxy = &Proxy{Folder: filepath.Join(b.work, "proxy"), Time: b.tagged}
	for _, m := range w.Published() {
		if err := b.proxy.Add(ctx, tree, "refs/tags/"+m.Tag(b.Version), m, b.Version); err != nil {
			return err
		}
	}
	return os.MkdirAll(b.made, 0o755)
}

// platform makes one platform's binary, archive, package and SBOM.
func (b *build) platform(ctx context.Context, p Platform) error {
	binary, err := b.install(ctx, p)
	if err != nil {
		return err
	}
	if err := b.check(binary); err != nil {
		return err
	}
	name := filepath.Join(b.made, strings.Join([]string{"fleetcall", b.Version, p.OS, p.Arch}, "_"))
	tree := filepath.Join(b.work, "tree")
	packed := []string{binary, filepath.Join(tree, "LICENSE"), filepath.Join(tree, "README.md")}
	if err := pack(name+".tar.gz", b.tagged, packed); err != nil {
		return err
	}
	if p.OS == "linux" {
		if err := b.debian(ctx, p, binary); err != nil {
			return err
		}
	}
	return describe(ctx, binary, name+".cdx.json", b.Version)
}

// install lets the go command install the program as a user would, with our modules
// from the proxy, and returns where it is.
func (b *build) install(ctx context.Context, p Platform) (string, error) {
	cache, err := goEnv(ctx, "GOMODCACHE")
	if err != nil {
		return "", err
	}
	upstream, err := goEnv(ctx, "GOPROXY")
	if err != nil {
		return "", err
	}
	gopath := filepath.Join(b.work, "gopath")
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", b.module+"/cmd/fleetcall@"+b.Version)
	cmd.Dir = b.work
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch, "GOWORK=off",
		"GOFLAGS=-modcacherw", "GOBIN=", "GOPATH="+gopath, "GOMODCACHE="+filepath.Join(b.work, "modules"),
		// What the machine has already is not fetched again. check holds all of it
		// against go.sum.
		"GOPROXY="+b.proxy.URL()+","+CacheURL(cache)+","+upstream, "GONOPROXY=none", "GOSUMDB=off")
	if _, err := output(cmd); err != nil {
		return "", err
	}
	name := "fleetcall"
	if p.OS == "windows" {
		name += ".exe"
	}
	if p.OS == runtime.GOOS && p.Arch == runtime.GOARCH {
		return filepath.Join(gopath, "bin", name), nil
	}
	return filepath.Join(gopath, "bin", p.OS+"_"+p.Arch, name), nil
}

// check refuses a binary that is not of this version, or has a module in it whose
// hash is not in the tag's go.sum.
func (b *build) check(binary string) error {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return fmt.Errorf("fleetcall: checking the binary: %w", err)
	}
	if info.Main.Path != b.module || info.Main.Version != b.Version {
		return fmt.Errorf("fleetcall: checking the binary: it is of %s %s, not of %s %s", info.Main.Path, info.Main.Version, b.module, b.Version)
	}
	for _, m := range info.Deps {
		if !strings.Contains(b.sums, fmt.Sprintf("%s %s %s\n", m.Path, m.Version, m.Sum)) {
			return fmt.Errorf("fleetcall: checking the binary: go.sum does not have %s %s %s", m.Path, m.Version, m.Sum)
		}
	}
	return nil
}

// goEnv asks the go command for one of its settings.
func goEnv(ctx context.Context, name string) (string, error) {
	return output(exec.CommandContext(ctx, "go", "env", name))
}

// CacheURL is the proxy that every module cache is.
func CacheURL(moduleCache string) string {
	return "file://" + path.Join(filepath.ToSlash(moduleCache), "cache", "download")
}

// deliver copies what was made to the folder out, with the checksums of all.
func deliver(made, out string) error {
	if err := checksums(made); err != nil {
		return err
	}
	files, err := os.ReadDir(made)
	if err != nil {
		return fmt.Errorf("fleetcall: delivering the release: %w", err)
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(made, file.Name()))
		if err != nil {
			return fmt.Errorf("fleetcall: delivering the release: %w", err)
		}
		target := filepath.Join(out, file.Name())
		if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("fleetcall: delivering the release: %w", err)
		}
		if err := write(target, content); err != nil {
			return err
		}
	}
	return nil
}
