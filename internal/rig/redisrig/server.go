// Package redisrig starts private Redis servers for tests: a single server, a Cluster,
// or a master with replicas and sentinels. Tests can add users and TLS.
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
	"github.com/fleetcall/fleetcall/internal/rig/netrig"

	"github.com/redis/go-redis/v9"
)

// Server is a private redis-server that stores nothing on disk.
type Server struct {
	Addr string // host:port

	t        testing.TB
	path     string
	dir      string
	config   string // path of a configuration file; empty: none
	args     []string
	bus      int // port of the cluster bus; 0: not in a cluster
	username string
	password string
	tls      *tls.Config // nil: the server does not use TLS
	clock    *Clock      // nil: the machine's
	host     *netrig.Host
	proc     *process.Process
}

// Start starts a redis-server and waits until it answers. args are added to its command
// line, for example "--maxmemory", "10mb". Start understands the arguments of ACL and
// TLS.Args, and a password given by --requirepass is part of URL. The server is stopped
// when the test ends.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	r := newServer(t, nil, args)
	r.launch()
	return r
}

// newServer returns a server that has not been started yet, on a host of its own if there is
// a network.
func newServer(t testing.TB, network *netrig.Network, args []string) *Server {
	t.Helper()
	var host *netrig.Host
	if network != nil {
		var err error
		if host, err = network.Host(); err != nil {
			t.Fatal(err)
		}
		args = append([]string{"--protected-mode", "no"}, args...)
	}
	r := &Server{
		t:    t,
		path: rig.Program(t, "redis-server", "redis-server", "/usr/local/bin/redis-server", "/opt/homebrew/bin/redis-server"),
		dir:  rig.TempDir(t, "fleetcall-redis-"),
		args: args,
		host: host,
	}
	for i, arg := range args {
		switch arg {
		case "--requirepass", "--masterauth":
			r.password = args[i+1]
		case "--masteruser":
			r.username = args[i+1]
		case "--tls-ca-cert-file":
			r.tls = clientTLS(t, args[i+1])
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
		r.Addr = net.JoinHostPort(r.host.IP(), strconv.Itoa(rig.FreePort(r.t)))
		if r.bus != 0 {
			r.bus = rig.FreePort(r.t)
		}
		if err = r.start(); err == nil {
			return
		}
	}
	r.t.Fatal(err)
}

// URL returns the server's redis:// or rediss:// URL, with user and password if it
// requires them.
func (r *Server) URL() string { return r.url("redis", r.Addr) }

// url returns a URL for hosts that require the same user, password and TLS as this
// server.
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

// Client returns a client for the test itself. It never retries, and is closed when the
// test ends.
func (r *Server) Client() *redis.Client {
	r.t.Helper()
	client := r.newClient()
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

func (r *Server) newClient() *redis.Client {
	const patience = 30 * time.Second // a command without a deadline of its own outlasts a stall of the machine
	return redis.NewClient(&redis.Options{
		Addr: r.Addr, Username: r.username, Password: r.password, TLSConfig: r.tls,
		MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: true,
		DialTimeout: patience, ReadTimeout: patience, WriteTimeout: patience, PoolTimeout: patience,
	})
}

// Kill sends SIGKILL and returns when the server has ended. A host of its own is gone with it:
// nobody is told that its connections have ended.
func (r *Server) Kill() {
	r.t.Helper()
	if r.proc == nil {
		return
	}
	if err := r.host.Drop(netrig.In, netrig.Out); err != nil {
		r.t.Fatal(err)
	}
	r.proc.Kill()
}

// Stop shuts the server down and returns when it has ended. It does nothing if the
// server is stopped.
func (r *Server) Stop() {
	if r.proc == nil || !r.proc.Running() {
		return
	}
	_ = r.proc.Signal(syscall.SIGCONT) // a frozen server would not see SIGTERM
	r.proc.Stop(syscall.SIGTERM, 5*time.Second)
}

// Restart stops the server if it runs, and starts it again on the same port, with no
// data and no scripts.
func (r *Server) Restart() {
	r.t.Helper()
	r.Stop()
	if err := r.host.Heal(); err != nil {
		r.t.Fatal(err)
	}
	var err error
	for range 50 { // connections may hold the port a little longer
		if err = r.start(); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.t.Fatal(err)
}

// Freeze suspends the server: it keeps its connections but answers nothing.
func (r *Server) Freeze() {
	r.t.Helper()
	if err := r.proc.Freeze(); err != nil {
		r.t.Fatal(err)
	}
}

// Thaw resumes a frozen server.
func (r *Server) Thaw() { r.signal(syscall.SIGCONT) }

func (r *Server) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.proc.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// command returns the server's program and its arguments.
func (r *Server) command(port string) (path string, args []string, err error) {
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
	args = append(args, "--bind", r.host.IP(), "--save", "", "--appendonly", "no",
		"--daemonize", "no", "--dir", r.dir, "--maxclients", "4000")
	return r.host.Command(r.path, append(args, r.args...)...)
}

func (r *Server) start() error {
	_, port, err := net.SplitHostPort(r.Addr)
	if err != nil {
		return err
	}
	path, args, err := r.command(port)
	if err != nil {
		return err
	}
	var output rig.Output
	spec := process.Spec{Path: path, Args: args, Stdout: &output, Stderr: &output}
	if r.clock != nil {
		spec.Env = r.clock.environment()
	}
	r.proc, err = process.Start(spec)
	if err != nil {
		return err
	}
	client := r.newClient()
	defer func() { _ = client.Close() }()
	err = rig.Eventually(r.proc.Done(), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// Without this check, the client would log that nothing listens yet.
		conn, err := net.DialTimeout("tcp", r.Addr, 5*time.Second)
		if err != nil {
			return err
		}
		_ = conn.Close()
		info, err := client.Info(ctx, "server").Result()
		if err != nil {
			return err
		}
		// The process id tells this server from another process's that has taken the
		// port.
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
