// Package rig holds what the packages below it share, each of which starts one
// kind of server or program for tests: on free ports of 127.0.0.1, with its data
// in a temporary directory. Nothing of them is left when the test ends, and on
// Linux no process is left even when the test's process is killed.
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

const startLimit = 30 * time.Second

// Program returns the path of an installed program or fails the test, naming
// what to install. Where the program is not in PATH, each pattern is looked at
// as filepath.Glob does, and of several matches the newest version is taken.
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

// TempDir makes a directory that is removed after the servers using it were
// stopped. Unlike t.TempDir's, its parents can be entered by another user.
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

// FreePort returns a port of 127.0.0.1 that nothing listens on. Another process
// may take it before the server does, so a server is tried on several ports.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Output keeps what a server printed, for messages about its failure. It may be
// written and read by several goroutines.
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

// Wait calls ready every few milliseconds until it returns nil. It fails the test
// when that takes more than 30 seconds.
func Wait(t testing.TB, what string, ready func() error) {
	t.Helper()
	if err := Eventually(nil, ready); err != nil {
		t.Fatalf("fleetcall: waiting for %s: %v", what, err)
	}
}

// Eventually calls ready every few milliseconds until it returns nil. It returns
// ready's last error when gone is closed, or when 30 seconds have passed.
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
