package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// proxying is a proxy in this process.
type proxying struct {
	*running          // url is for clients
	admin    *running // the other address
}

// startProxy starts a proxy with flags, waits until it is ready, and stops it with the test.
func startProxy(t *testing.T, upstream string, args ...string) proxying {
	t.Helper()
	p := launchProxy(t, upstream, args...)
	eventually(t, "ready", func() bool { return strings.Contains(p.log.String(), "msg=ready") })
	return p
}

// launchProxy is startProxy without the wait.
func launchProxy(t *testing.T, upstream string, args ...string) proxying {
	t.Helper()
	flags := []string{"proxy", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0", "--redis-timeout=1m", "--lease-ttl=1m", "--flight-timeout=1m", "--upstream", upstream}
	c, err := parseCommand(append(flags, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	p := proxying{running: runs(t, func(ctx context.Context, log *slog.Logger) (*replica, error) { return newProxy(ctx, &c.Proxy, log) })}
	admin := *p.running
	admin.url = "http://" + p.replica.endpoints[1].listener.Addr().String()
	p.admin = &admin
	return p
}

// origin starts a server that a proxy is before.
func origin(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// rulesFile writes a configuration file, and returns the flag for it.
func rulesFile(t testing.TB, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "proxy.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return "--config=" + file
}

func pemOfCertificate(pair tls.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})
}

func pemOfKey(pair tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}
