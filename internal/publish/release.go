package publish

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// Release is one version of all published modules.
type Release struct {
	Version string // as v0.2.0
	// Date stands in the changelog and on the commit. Two releases from one commit
	// with one date are the same to the last bit.
	Date      time.Time
	Platforms []Platform
	Log       io.Writer // what is being done, a line each
}

// Make commits and tags the version in the repository at root, and puts the binaries
// into its folder dist. It pushes nothing. It refuses a version that the go command
// would not take, one that is tagged already, and a tree with changes that are not
// committed.
//
// All is done in a clone, and brought over at the end: a release that fails leaves the
// repository as it was.
func (r Release) Make(ctx context.Context, root string) error {
	if err := checkVersion(r.Version); err != nil {
		return err
	}
	w, err := Open(root)
	if err != nil {
		return err
	}
	if err := clean(ctx, root); err != nil {
		return err
	}
	for _, m := range w.Published() {
		if _, err := git(ctx, root, "rev-parse", "--quiet", "--verify", "refs/tags/"+m.Tag(r.Version)); err == nil {
			return fmt.Errorf("fleetcall: the tag %s exists already; a version is released once, take the next", m.Tag(r.Version))
		}
	}
	work, err := os.MkdirTemp("", "fleetcall-release-")
	if err != nil {
		return fmt.Errorf("fleetcall: making a release: %w", err)
	}
	defer os.RemoveAll(work)
	clone := filepath.Join(work, "clone")
	if _, err := git(ctx, w.Root, "clone", "--quiet", "--no-tags", w.Root, clone); err != nil {
		return err
	}
	if err := r.commit(ctx, w, clone); err != nil {
		return err
	}
	if err := r.Build(ctx, clone, filepath.Join(w.Root, "dist")); err != nil {
		return err
	}
	return r.bringOver(ctx, w, clone)
}

func checkVersion(version string) error {
	switch {
	case version == "":
		return fmt.Errorf("fleetcall: a version is needed: make release VERSION=v0.2.0")
	case !semver.IsValid(version) || semver.Canonical(version) != version || module.IsPseudoVersion(version):
		return fmt.Errorf("fleetcall: %q is not a version that the go command takes; it looks like v0.2.0 or v0.2.0-rc.1", version)
	case semver.Compare(version, "v2.0.0-0") >= 0:
		return fmt.Errorf("fleetcall: %s needs module paths that end in /%s; releases are below v2", version, semver.Major(version))
	}
	return nil
}

// commit makes the release's commit and tags in the clone.
func (r Release) commit(ctx context.Context, w *Workspace, clone string) error {
	changelog := filepath.Join(clone, "CHANGELOG.md")
	text, err := os.ReadFile(changelog)
	if err != nil {
		return fmt.Errorf("fleetcall: reading the changelog: %w", err)
	}
	if err := write(changelog, []byte(release(string(text), r.Version, r.Date))); err != nil {
		return err
	}
	if err := deployed(clone, r.Version); err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "fleetcall-proxy-")
	if err != nil {
		return fmt.Errorf("fleetcall: making a release: %w", err)
	}
	defer os.RemoveAll(folder)
	if err := Stamp(ctx, clone, r.Version, &Proxy{Folder: folder, Time: r.Date}); err != nil {
		return err
	}
	if err := r.git(ctx, w, clone, "commit", "--quiet", "--allow-empty", "--message", "Release "+r.Version); err != nil {
		return err
	}
	for _, m := range w.Published() {
		r.log("tag %s", m.Tag(r.Version))
		if err := r.git(ctx, w, clone, "tag", "--annotate", "--message", m.Path+" "+r.Version, m.Tag(r.Version)); err != nil {
			return err
		}
	}
	return nil
}

// git runs git in the clone as who would commit in the repository itself, at the
// release's date.
func (r Release) git(ctx context.Context, w *Workspace, clone string, args ...string) error {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = clone
	cmd.Env = os.Environ()
	date := fmt.Sprintf("%d +0000", r.Date.Unix())
	for _, who := range []string{"AUTHOR", "COMMITTER"} {
		identity, err := git(ctx, w.Root, "var", "GIT_"+who+"_IDENT")
		if err != nil {
			return err
		}
		name, rest, _ := strings.Cut(identity, " <")
		email, _, _ := strings.Cut(rest, ">")
		cmd.Env = append(cmd.Env, "GIT_"+who+"_NAME="+name, "GIT_"+who+"_EMAIL="+email, "GIT_"+who+"_DATE="+date)
	}
	_, err := output(cmd)
	return err
}

// bringOver fetches the release from the clone, and moves the branch to it.
func (r Release) bringOver(ctx context.Context, w *Workspace, clone string) error {
	steps := [][]string{{"fetch", "--quiet", "--no-tags", clone, "HEAD"}, {"merge", "--quiet", "--ff-only", "FETCH_HEAD"}}
	tags := []string{"fetch", "--quiet", "--no-tags", clone}
	for _, m := range w.Published() {
		tag := "refs/tags/" + m.Tag(r.Version)
		tags = append(tags, tag+":"+tag)
	}
	for _, step := range append(steps, tags) {
		if _, err := git(ctx, w.Root, step...); err != nil {
			return err
		}
	}
	names := slices.Collect(func(yield func(string) bool) {
		for _, m := range w.Published() {
			if !yield(m.Tag(r.Version)) {
				return
			}
		}
	})
	r.log("released %s, and pushed nothing. To publish it: git push --atomic origin HEAD %s", r.Version, strings.Join(names, " "))
	return nil
}

func (r Release) log(format string, args ...any) {
	_, _ = fmt.Fprintf(r.Log, format+"\n", args...)
}
