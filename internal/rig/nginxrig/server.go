// Package nginxrig starts nginx for tests, with any configuration.
package nginxrig

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// Files are the files of a configuration by name. nginx starts with nginx.conf.
type Files map[string][]byte

// Start starts nginx and waits until it answers a request for url. It is stopped
// when the test ends.
func Start(t testing.TB, files Files, url string) {
	t.Helper()
	var output rig.Output
	p, err := process.Start(process.Spec{
		Path: find(t), Args: arguments(t, files), Stdout: &output, Stderr: &output,
		DeathSignal: syscall.SIGTERM, // on which nginx stops its workers
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM, time.Minute) })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	err = rig.Eventually(p.Done(), func() error {
		resp, err := client.Get(url) //nolint:noctx // it has a timeout
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	if err != nil {
		t.Fatalf("fleetcall: starting nginx: %v\n%s", err, output.String())
	}
}

// Check lets nginx check a configuration without starting it, and returns what
// nginx says and whether it accepts the configuration.
func Check(t testing.TB, files Files) (says string, accepted bool) {
	t.Helper()
	out, err := exec.Command(find(t), append([]string{"-t"}, arguments(t, files)...)...).CombinedOutput()
	return string(out), err == nil
}

// Fixed returns an upstream.conf of deploy/ without what looks names up again and again: for
// servers that have an address instead of a name, and for nginx before 1.27.3, which lacks it.
func Fixed(upstream []byte) []byte {
	return resolving.ReplaceAll(upstream, nil)
}

var resolving = regexp.MustCompile(`(?m)^resolver(_timeout)? .*\n| resolve\b`)

func find(t testing.TB) string {
	t.Helper()
	return rig.Program(t, "nginx", "nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx")
}

// arguments writes the files and returns the arguments that make nginx use them.
func arguments(t testing.TB, files Files) []string {
	t.Helper()
	dir := rig.TempDir(t, "fleetcall-nginx-")
	// If root starts nginx, its workers run as another user and need to enter dir.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatalf("fleetcall: preparing nginx: %v", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatalf("fleetcall: preparing nginx: %v", err)
		}
	}
	return []string{"-p", dir + "/", "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", "daemon off;"}
}
