// Package rig holds what the packages below it share. Each of those starts one kind of
// server or program for tests, on free ports of 127.0.0.1, with its data in a temporary
// directory. Nothing of them is left when the test ends. On Linux, no process is left
// even if the test's own process is killed.
package rig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/loopback"
)

// startLimit is long, because on a busy machine a server may take long to start.
const startLimit = 2 * time.Minute

// Program returns the path of an installed program. If it is not in PATH, Program looks
// for it with the patterns, as filepath.Glob does, and takes the newest version of
// those that the first matching pattern finds. If there is none, it fails the test and
// names the package to install.
func Program(t testing.TB, name, debianPackage string, patterns ...string) string {
	t.Helper()
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	newest := ""
	for _, pattern := range patterns {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatalf("fleetcall: looking for %s: %v", name, err)
		}
		for _, m := range matches {
			if len(m) > len(newest) || len(m) == len(newest) && m > newest {
				newest = m
			}
		}
		if newest != "" {
			return newest
		}
	}
	t.Fatalf("%s is not installed; on Debian or Ubuntu: sudo apt-get install -y %s (or: make setup)", name, debianPackage)
	return ""
}

// TempDir creates a directory that is removed when the test has stopped its servers.
// Other users can enter its parents, unlike those of t.TempDir.
func TempDir(t testing.TB, pattern string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", pattern)
	if err != nil {
		t.Fatalf("fleetcall: making a server's directory: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("fleetcall: removing a server's directory: %v", err)
		}
	})
	return dir
}

// FreePort returns a port of 127.0.0.1 on which nothing listens. Another process may
// take it before the server does, so callers try several ports.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Output keeps the output of a server for error messages. Several goroutines may write
// and read it.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// Wait calls ready every few milliseconds until it returns nil. If that takes more than
// two minutes, Wait fails the test.
func Wait(t testing.TB, what string, ready func() error) {
	t.Helper()
	if err := Eventually(nil, ready); err != nil {
		t.Fatalf("fleetcall: waiting for %s: %v", what, err)
	}
}

// Eventually calls ready every few milliseconds until it returns nil. If gone is closed
// or two minutes have passed, it returns ready's last error.
func Eventually(gone <-chan struct{}, ready func() error) error {
	deadline := time.Now().Add(startLimit)
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-gone:
			return fmt.Errorf("it exited: %w", err)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after %v: %w", startLimit, err)
		}
	}
}
