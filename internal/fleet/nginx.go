package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fleetcall/fleetcall/deploy"
	"github.com/fleetcall/fleetcall/internal/process"
)

var errNoNginx = errors.New("fleetcall: nginx is not installed")

// nginx is a running process of the installed nginx, with a directory of its own.
type nginx struct {
	byURI  bool // all requests for one path go to one replica
	dir    string
	proc   *process.Process
	client *http.Client
	url    string
	ending atomic.Bool
	mu     sync.Mutex // held by setReplicas, so that reloads come one after another
}

// ListenConf returns a listen.conf that makes nginx listen on addr, which has the form
// and meaning of an address for net.Listen.
func ListenConf(addr string) ([]byte, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: listen address %q: %w", addr, err)
	}
	const options = "backlog=4096 reuseport"
	var b bytes.Buffer
	switch {
	case host != "":
		fmt.Fprintf(&b, "listen %s %s;\n", net.JoinHostPort(host, port), options)
	default:
		fmt.Fprintf(&b, "listen 0.0.0.0:%s %s;\n", port, options)
		if l, err := net.Listen("tcp6", "[::1]:0"); err == nil {
			_ = l.Close()
			fmt.Fprintf(&b, "listen [::]:%s ipv6only=on %s;\n", port, options)
		}
	}
	return b.Bytes(), nil
}

// UpstreamConf returns an upstream.conf that lists the replicas at these addresses.
func UpstreamConf(addrs []string) []byte { return upstreamConf(addrs, false) }

func upstreamConf(addrs []string, byURI bool) []byte {
	var b bytes.Buffer
	if byURI {
		b.WriteString("hash $request_uri consistent;\n")
	}
	for _, addr := range addrs {
		fmt.Fprintf(&b, "server %s max_fails=3 fail_timeout=5s;\n", addr)
	}
	return b.Bytes()
}

func findNginx() (string, error) {
	if path, err := exec.LookPath("nginx"); err == nil {
		return path, nil
	}
	// On Debian, an ordinary user's PATH lacks the directory of nginx.
	for _, path := range []string{"/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", errNoNginx
}

func startNginx(ctx context.Context, listen, dir string, addrs []string, byURI bool, logs io.Writer, report func(string)) (*nginx, error) {
	path, err := findNginx()
	if err != nil {
		return nil, err
	}
	listenConf, err := ListenConf(listen)
	if err != nil {
		return nil, err
	}
	// If root starts nginx, its workers run as another user, who must be able to read
	// the files in dir.
	if err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, fmt.Errorf("fleetcall: preparing nginx: %w", err)
	}
	n := &nginx{
		dir:    dir,
		byURI:  byURI,
		url:    baseURL(listen),
		client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, "nginx.conf"), deploy.NginxConf, 0o644),
		os.WriteFile(filepath.Join(dir, "listen.conf"), listenConf, 0o644),
		os.WriteFile(filepath.Join(dir, "upstream.conf"), upstreamConf(addrs, n.byURI), 0o644),
	)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: preparing nginx: %w", err)
	}
	output := &tail{w: logs}
	n.proc, err = process.Start(process.Spec{
		Path:   path,
		Args:   []string{"-p", dir + "/", "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", "daemon off;" + openFiles()},
		Stdout: output, Stderr: output,
		DeathSignal: syscall.SIGTERM, // on which nginx stops its workers
	})
	if err != nil {
		return nil, err
	}
	if err := n.waitReady(ctx); err != nil {
		n.proc.Stop(syscall.SIGTERM, 2*time.Second)
		return nil, fmt.Errorf("fleetcall: starting nginx on %s: %w\n%s", listen, err, output.String())
	}
	go func() {
		<-n.proc.Done()
		if !n.ending.Load() {
			report(fmt.Sprintf("nginx (process %d) ended by itself: %v", n.proc.Pid(), n.proc.Err()))
		}
	}()
	return n, nil
}

// openFiles returns a directive that lets nginx open as many files as this process's
// hard limit allows. The soft limit, often 1,024, would be too low for a thousand
// clients.
func openFiles() string {
	_, hard, known := process.OpenFiles()
	if !known || hard == 0 {
		return ""
	}
	return " worker_rlimit_nofile " + strconv.FormatUint(min(hard, 65536), 10) + ";"
}

// waitReady returns when nginx passes requests on to a replica.
func (n *nginx) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-n.proc.Done():
			return fmt.Errorf("it ended: %w", errors.Join(n.proc.Err(), err))
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (n *nginx) probe(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/health", nil)
	if err != nil {
		return err
	}
	resp, err := n.client.Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (n *nginx) name() string { return "nginx" }

func (n *nginx) setReplicas(ctx context.Context, addrs []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := workers(n.proc.Pid())
	if err := os.WriteFile(filepath.Join(n.dir, "upstream.conf"), upstreamConf(addrs, n.byURI), 0o644); err != nil {
		return fmt.Errorf("fleetcall: telling nginx of its replicas: %w", err)
	}
	if err := n.proc.Signal(syscall.SIGHUP); err != nil {
		return err
	}
	// The old workers may take new connections until the new workers run and nginx has
	// told the old ones to finish.
	deadline := time.NewTimer(5 * time.Second)
	defer deadline.Stop()
	for !reloaded(before, workers(n.proc.Pid())) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline.C:
			return errors.New("fleetcall: telling nginx of its replicas: it did not reload")
		case <-time.After(10 * time.Millisecond):
		}
	}
	// nginx waits 100 ms before it tells the old workers.
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(200 * time.Millisecond):
		return nil
	}
}

// workers returns the process ids of nginx's workers. It returns none on systems
// without /proc.
func workers(pid int) map[string]bool {
	children := map[string]bool{}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for id := range bytes.FieldsSeq(text) {
			children[string(id)] = true
		}
	}
	return children
}

func reloaded(before, now map[string]bool) bool {
	if len(before) == 0 {
		return true
	}
	for id := range now {
		if !before[id] {
			return true
		}
	}
	return false
}

// close gives nginx two seconds to finish the requests under way.
func (n *nginx) close() error {
	n.ending.Store(true)
	if err := n.proc.Signal(syscall.SIGQUIT); err != nil {
		return err
	}
	select {
	case <-n.proc.Done():
	case <-time.After(2 * time.Second):
		n.proc.Stop(syscall.SIGTERM, 5*time.Second)
	}
	return nil
}
