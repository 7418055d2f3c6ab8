// Package redisrig starts private redis-servers for tests: one, a Cluster, or a
// master that sentinels watch, with users and TLS where a test wants them.
package redisrig

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/rig"

	"github.com/redis/go-redis/v9"
)

// Server is a private redis-server that keeps nothing on disk.
type Server struct {
	Addr string // host:port

	t        testing.TB
	path     string
	dir      string
	config   string // path of a configuration file; empty: none
	args     []string
	bus      int // port of the cluster bus; 0: no cluster
	username string
	password string
	tls      *tls.Config // nil: the server speaks in the clear
	proc     *process.Process
}

// Start starts a redis-server and waits until it answers. args are added
// to its command line, as in "--maxmemory", "10mb"; those of ACL and TLS.Args
// are understood, and with --requirepass the password also is in URL. The
// server is stopped when the test ends.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	r := newServer(t, args)
	r.launch()
	return r
}

// newServer returns a server that is not started yet.
func newServer(t testing.TB, args []string) *Server {
	t.Helper()
	r := &Server{
		t:    t,
		path: rig.Program(t, "redis-server", "redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"),
		dir:  rig.TempDir(t, "fleetcall-redis-"),
		args: args,
	}
	for i, arg := range args {
		switch arg {
		case "--requirepass", "--masterauth":
			r.password = args[i+1]
		case "--masteruser":
			r.username = args[i+1]
		case "--tls-ca-cert-file":
			r.tls = trusting(t, args[i+1])
		}
	}
	return r
}

// launch starts the server for the first time, on free ports.
func (r *Server) launch() {
	r.t.Helper()
	r.t.Cleanup(r.Stop)
	var err error
	for range 10 { // another process may take a port first
		r.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(rig.FreePort(r.t)))
		if r.bus != 0 {
			r.bus = rig.FreePort(r.t)
		}
		if err = r.start(); err == nil {
			return
		}
	}
	r.t.Fatal(err)
}

// URL returns the server's redis:// or rediss:// address with its user and
// password, if it has them.
func (r *Server) URL() string { return r.url("redis", r.Addr) }

// url returns the address of hosts that are reached as this server is.
func (r *Server) url(scheme, hosts string) string {
	if r.tls != nil {
		scheme = "rediss" + strings.TrimPrefix(scheme, "redis")
	}
	u := url.URL{Scheme: scheme, Host: hosts}
	if r.password != "" {
		u.User = url.UserPassword(r.username, r.password)
	}
	return u.String()
}

// Pid returns the server's process id.
func (r *Server) Pid() int { return r.proc.Pid() }

// Client returns a client for the test's own use, which is closed when the
// test ends. It retries nothing.
func (r *Server) Client() *redis.Client {
	r.t.Helper()
	client := r.newClient()
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (r *Server) newClient() *redis.Client {
	return redis.NewClient(&redis.Options{
		Addr: r.Addr, Username: r.username, Password: r.password, TLSConfig: r.tls,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
	})
}

// Kill ends the server with SIGKILL and returns when it is gone.
func (r *Server) Kill() {
	if r.proc != nil {
		r.proc.Kill()
	}
}

// Stop shuts the server down and returns when it is gone. Stopping a stopped
// server does nothing.
func (r *Server) Stop() {
	if r.proc == nil || !r.proc.Running() {
		return
	}
	_ = r.proc.Signal(syscall.SIGCONT) // a frozen server would not see SIGTERM
	r.proc.Stop(syscall.SIGTERM, 5*time.Second)
}

// Restart starts the server again on the same port, empty and without
// scripts, after stopping it if it runs.
func (r *Server) Restart() {
	r.t.Helper()
	r.Stop()
	var err error
	for range 50 { // connections may hold the port for a moment
		if err = r.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatal(err)
}

// Freeze makes the server hang: it keeps its connections and answers nothing.
func (r *Server) Freeze() { r.signal(syscall.SIGSTOP) }

// Thaw continues a frozen server.
func (r *Server) Thaw() { r.signal(syscall.SIGCONT) }

func (r *Server) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.proc.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

func (r *Server) start() error {
	_, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return err
	}
	var output rig.Output
	var args []string
	if r.config != "" {
		args = append(args, r.config)
	}
	if r.tls == nil {
		args = append(args, "--port", port)
	} else {
		args = append(args, "--port", "0", "--tls-port", port)
	}
	if r.bus != 0 {
		args = append(args, "--cluster-port", strconv.Itoa(r.bus))
	}
	args = append(args, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--dir", r.dir, "--maxclients", "4000")
	args = append(args, r.args...)
	r.proc, err = process.Start(process.Spec{Path: r.path, Args: args, Stdout: &output, Stderr: &output})
	if err != nil {
		return err
	}
	client := r.newClient()
	defer func() { _ = client.Close() }()
	err = rig.Eventually(r.proc.Done(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		// The client would log that nothing listens yet.
		conn, err := net.DialTimeout("tcp", r.Addr, time.Second)
		if err != nil {
			return err
		}
		_ = conn.Close()
		info, err := client.Info(ctx, "server").Result()
		if err != nil {
			return err
		}
		// The port may be another process' whose server answers just as well.
		if !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", r.proc.Pid())) {
			return fmt.Errorf("another server listens on %s", r.Addr)
		}
		return nil
	})
	if err != nil {
		r.proc.Kill()
		return fmt.Errorf("fleetcall: starting redis-server on %s: %w\n%s", r.Addr, err, output.String())
	}
	return nil
}
