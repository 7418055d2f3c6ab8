// Package uvicornrig starts Python apps for tests, each in a process of uvicorn.
package uvicornrig

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"
)

// Server is an app in a process of its own.
type Server struct {
	Addr string // host:port
	URL  string // without a slash at its end

	t      testing.TB
	dir    string
	env    []string
	port   string
	proc   *process.Process
	output *rig.Output // since the last start
}

// Start starts the app that main.py in a folder calls app, with more variables of the
// environment, on a free port, and waits until it listens. It is stopped when the test
// ends.
func Start(t testing.TB, dir string, env ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: dir, env: append(os.Environ(), env...), port: "0"}
	t.Cleanup(s.Stop)
	s.Start()
	return s
}

// Start starts a server that has ended again, on the same port.
func (s *Server) Start() {
	s.t.Helper()
	python, err := python()
	if err != nil {
		s.t.Fatal(err)
	}
	s.output = &rig.Output{}
	s.proc, err = process.Start(process.Spec{
		Path: python,
		// -B: no compiled files appear beside the app's own. Idle connections stay open for
		// longer than those who ask keep them, so that no request is sent on a closed one.
		Args: []string{
			"-B", "-m", "uvicorn", "main:app", "--app-dir", s.dir, "--host", "127.0.0.1", "--port", s.port,
			"--backlog", "4096", "--timeout-keep-alive", "120", "--no-access-log", "--no-use-colors",
		},
		Env: s.env, Stdout: s.output, Stderr: s.output,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := rig.Eventually(s.proc.Done(), s.listens); err != nil {
		s.Kill()
		s.t.Fatalf("fleetcall: starting uvicorn: %v\n%s", err, s.output)
	}
}

// Stop lets the server answer what it has begun, and returns when it has ended.
func (s *Server) Stop() {
	if s.proc != nil && s.proc.Running() {
		s.proc.Stop(syscall.SIGTERM, 10*time.Second)
	}
}

// Kill ends the server at once, with all of its connections.
func (s *Server) Kill() { s.proc.Kill() }

var running = regexp.MustCompile(`Uvicorn running on http://(127\.0\.0\.1:(\d+))`)

// listens returns nil when the server has said where it listens.
func (s *Server) listens() error {
	found := running.FindStringSubmatch(s.output.String())
	if found == nil {
		return errors.New("it does not listen")
	}
	s.Addr, s.port = found[1], found[2]
	s.URL = "http://" + s.Addr
	return nil
}

// python returns a python3 that has what the apps need: that of PATH may be another than
// the one for which the system's packages are installed.
var python = sync.OnceValues(func() (string, error) {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import fastapi, uvicorn, asyncpg").Run() == nil {
			return exec.LookPath(name)
		}
	}
	return "", fmt.Errorf("fleetcall: no python3 here has FastAPI, uvicorn and asyncpg; on Debian or Ubuntu: sudo apt-get install -y python3-fastapi python3-uvicorn python3-asyncpg (or: make setup)")
})
