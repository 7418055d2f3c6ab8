package publish_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/fleetcall/fleetcall/internal/publish"
)

// A release is built for each platform when it is made. What does not build anywhere but
// here must be known before.
func TestTheProgramBuildsForEveryPlatformOfARelease(t *testing.T) {
	for _, p := range publish.Platforms {
		t.Run(p.OS+"/"+p.Arch, func(t *testing.T) {
			cmd := exec.Command("go", "build", "-o", os.DevNull, "./cmd/fleetcall")
			cmd.Dir = "../.."
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch)
			if says, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, says)
			}
		})
	}
}
