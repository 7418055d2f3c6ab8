// Package sourcerig has the project's source as it was before, from git's history.
package sourcerig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoHistory says that git does not have what is asked for, as in a shallow clone or an
// archive.
var ErrNoHistory = errors.New("git does not have the commit; get the whole history by git fetch --unshallow")

// Unpack writes the source of a commit into a directory.
func Unpack(ctx context.Context, commit, dir string) error {
	root, err := topLevel(ctx)
	if err != nil {
		return err
	}
	if err := has(ctx, root, commit); err != nil {
		return err
	}
	packed := filepath.Join(dir, "source.tar")
	if _, err := git(ctx, root, "archive", "--format=tar", "--output", packed, commit); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "-xf", packed).CombinedOutput(); err != nil {
		return fmt.Errorf("sourcerig: unpacking %s: %w\n%s", commit, err, out)
	}
	return os.Remove(packed)
}

// LastRelease returns the commit of the release before this one. While there is none, it is
// the one before the last change of a script that Redis runs.
func LastRelease(ctx context.Context) (commit string, err error) {
	root, err := topLevel(ctx)
	if err != nil {
		return "", err
	}
	if err := has(ctx, root, "HEAD^"); err != nil {
		return "", err
	}
	tags, err := git(ctx, root, "tag", "--list", "v*", "--merged", "HEAD^", "--sort", "-version:refname")
	if err != nil {
		return "", err
	}
	commit, _, _ = strings.Cut(tags, "\n")
	if commit == "" {
		changed, err := git(ctx, root, "log", "-1", "--format=%h", "--", "*.lua")
		if err != nil {
			return "", err
		}
		commit = changed + "^"
	}
	return commit, has(ctx, root, commit)
}

func topLevel(ctx context.Context) (string, error) {
	root, err := git(ctx, ".", "rev-parse", "--show-toplevel")
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoHistory, err)
	}
	return root, nil
}

func has(ctx context.Context, root, commit string) error {
	if _, err := git(ctx, root, "cat-file", "-e", commit+"^{commit}"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoHistory, err)
	}
	return nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sourcerig: git %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}
