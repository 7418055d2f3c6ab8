// Package testserver runs private Redis and PostgreSQL servers for tests: on
// free ports of 127.0.0.1, with their data in a temporary directory. Nothing of
// them is left when the test ends, and on Linux no process is left even when
// the test's process is killed.
package testserver

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const startLimit = 30 * time.Second

// find returns the path of an installed program or fails the test, naming
// what to install.
func find(t testing.TB, name, debianPackage string, patterns ...string) string {
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

// tempDir makes a directory that is removed after the servers using it were
// stopped. Unlike t.TempDir's, its parents can be entered by another user.
func tempDir(t testing.TB, pattern string) string {
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

// buffer keeps what a server printed, for messages about its failure.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// eventually calls ready every few milliseconds until it returns nil, gone is
// closed, or the start limit has passed.
func eventually(gone <-chan struct{}, ready func() error) error {
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
