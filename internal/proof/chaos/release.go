package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// oldSource writes the source of the release before this one into dir, and returns its name.
// While there is none, it is the source before the last change of a script that Redis runs.
func oldSource(ctx context.Context, dir string) (name string, err error) {
	git := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, "git", args...).Output()
		if err != nil {
			return "", fmt.Errorf("chaos: git %s: %w", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(out)), nil
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err != nil {
		return "", err
	}
	name, err = git("-C", root, "describe", "--tags", "--abbrev=0", "--match", "v*", "HEAD^")
	if err != nil {
		changed, err := git("-C", root, "log", "-1", "--format=%h", "--", "*.lua")
		if err != nil {
			return "", err
		}
		name = changed + "^"
	}
	packed := filepath.Join(dir, "old.tar")
	if _, err := git("-C", root, "archive", "--output", packed, name); err != nil {
		return "", errors.Join(err, errors.New("chaos: the old release needs the repository's history"))
	}
	if out, err := exec.CommandContext(ctx, "tar", "-C", dir, "-xf", packed).CombinedOutput(); err != nil {
		return "", fmt.Errorf("chaos: unpacking the old release: %w\n%s", err, out)
	}
	return name, os.Remove(packed)
}

// buildOld builds the program of skewed replicas of the release before this one.
func buildOld(ctx context.Context, dir string) (path, name string, err error) {
	dir = filepath.Join(dir, "old")
	source := filepath.Join(dir, "source")
	if err := os.MkdirAll(source, 0o700); err != nil {
		return "", "", err
	}
	if name, err = oldSource(ctx, source); err != nil {
		return "", "", err
	}
	path, err = buildSkewed(ctx, source, dir)
	return path, name, err
}
