package chaos

import (
	"context"
	"os"
	"path/filepath"

	"github.com/fleetcall/fleetcall/internal/rig/sourcerig"
)

// buildOld builds the program of skewed replicas of the release before this one, and returns
// the release's name, too. Its error wraps sourcerig.ErrNoHistory where git does not have it.
func buildOld(ctx context.Context, dir string) (path, name string, err error) {
	dir = filepath.Join(dir, "old")
	source := filepath.Join(dir, "source")
	if err := os.MkdirAll(source, 0o700); err != nil {
		return "", "", err
	}
	if name, err = sourcerig.LastRelease(ctx); err != nil {
		return "", "", err
	}
	if err := sourcerig.Unpack(ctx, name, source); err != nil {
		return "", "", err
	}
	path, err = buildSkewed(ctx, source, dir, "GOFLAGS=", "GOWORK="+filepath.Join(source, "go.work"))
	return path, name, err
}
