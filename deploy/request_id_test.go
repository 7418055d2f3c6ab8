package deploy_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/deploy"
	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/loopback"
	"github.com/fleetcall/fleetcall/internal/process"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
)

// startNginx starts nginx with a configuration in front of a server and returns
// its address.
func startNginx(t *testing.T, conf []byte, upstream string) string {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		t.Fatal("nginx is not installed; on Debian or Ubuntu: sudo apt-get install -y nginx (or: make setup)")
	}
	port, err := loopback.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	listen, err := fleet.ListenConf(addr)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"nginx.conf": conf, "listen.conf": listen, "upstream.conf": fleet.UpstreamConf([]string{upstream})} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var out buffer
	p, err := process.Start(process.Spec{
		Path: path, Args: []string{"-p", dir + "/", "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr", "-g", "daemon off;"},
		Stdout: &out, Stderr: &out, DeathSignal: syscall.SIGTERM,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Stop(syscall.SIGTERM, 5*time.Second) })
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + addr + "/livez") //nolint:noctx // a test's
		if err == nil {
			_ = resp.Body.Close()
			return "http://" + addr
		}
		if time.Now().After(limit) {
			t.Fatalf("nginx does not answer: %v\n%s", err, out.String())
		}
	}
}

// buffer is safe to read while it is written.
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

func TestRequestIDsPassThroughNginxIntoTheLog(t *testing.T) {
	store, err := sqlite.Open(t.Context(), "", product.PoolConfig{Min: 1, Max: 1, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	var log buffer
	server, err := api.New(api.Config{
		Group: coalesce.Off[product.Product]{}, Store: store, Mode: "off", Replica: "r",
		Logger: slog.New(api.RequestLog{Handler: slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})}),
	})
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan string, 1)
	replica := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			received <- r.Header.Get("X-Request-Id") // before the replica looks at it
		}
		server.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(replica.Close)
	nginx := startNginx(t, deploy.NginxConf, strings.TrimPrefix(replica.URL, "http://"))
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for id, kept := range map[string]bool{
		"abc-123": true, "ü": false, "a b": false, "a\tb": false, "": false,
		strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, nginx+"/product/normal/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header["X-Request-Id"] = []string{id}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		at := <-received
		if at == "" || (at == id) != kept || len(at) > 128 {
			t.Errorf("%q reaches the replica as %q", id, at)
		}
		if back := resp.Header.Get("X-Request-Id"); back != at || !strings.Contains(log.String(), "request_id="+at) {
			t.Errorf("%q reaches the replica as %q, the client as %q, and the log as\n%s", id, at, back, log.String())
		}
	}
}
