package deploy_test

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/deploy"
	"github.com/fleetcall/fleetcall/internal/fleet"
	"github.com/fleetcall/fleetcall/internal/product"
	"github.com/fleetcall/fleetcall/internal/product/sqlite"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/nginxrig"
)

// startNginx starts nginx with a configuration in front of a server, and returns
// nginx's base URL.
func startNginx(t *testing.T, conf []byte, upstream string) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", rig.FreePort(t))
	nginxrig.Start(t, nginxFiles(t, conf, addr, upstream), "http://"+addr+"/livez")
	return "http://" + addr
}

// nginxFiles returns a configuration like that of the fleet runner.
func nginxFiles(t *testing.T, conf []byte, addr string, upstreams ...string) nginxrig.Files {
	t.Helper()
	listen, err := fleet.ListenConf(addr)
	if err != nil {
		t.Fatal(err)
	}
	return nginxrig.Files{"nginx.conf": conf, "listen.conf": listen, "upstream.conf": fleet.UpstreamConf(upstreams)}
}

func TestRequestIDsPassThroughNginxIntoTheLog(t *testing.T) {
	store, err := sqlite.Open(t.Context(), "", product.PoolConfig{Min: 1, Max: 1, Wait: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	var log rig.Output
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
			received <- r.Header.Get("X-Request-Id") // as nginx sent it
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
