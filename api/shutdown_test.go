package api_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/api"
	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/internal/product"
)

func sha256Source(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// listen serves s on a port of its own. The channel gets the error that Serve returns.
func listen(t *testing.T, s *store) (*api.Server, string, <-chan error) {
	t.Helper()
	server, err := api.New(api.Config{Group: coalesce.Off[product.Product]{}, Store: s, Mode: "off", Replica: "r", WriteTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	return server, "http://" + l.Addr().String(), served
}

func TestShutdownSaysNotReadyAndLetsRequestsFinish(t *testing.T) {
	running, release := make(chan struct{}), make(chan struct{})
	s := &store{query: func(context.Context, int32) (product.Product, error) {
		close(running)
		<-release
		return product.Catalogue()[0], nil
	}}
	server, url, served := listen(t, s)
	status := make(chan int, 1)
	go func() {
		resp, err := http.Get(url + "/product/coalesced/1") //nolint:noctx // the server ends the request
		if err != nil {
			t.Error(err)
			status <- 0
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	<-running
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(t.Context()) }()
	ready := func() int {
		w := httptest.NewRecorder()
		server.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code
	}
	for ready() != http.StatusServiceUnavailable {
		time.Sleep(time.Millisecond) // no event announces it
	}
	select {
	case err := <-stopped:
		t.Fatalf("Shutdown returned %v with a request under way", err)
	default:
	}
	close(release)
	if got := <-status; got != http.StatusOK {
		t.Errorf("the request under way got %d", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestShutdownCutsWhatOutlastsItsGrace(t *testing.T) {
	running := make(chan struct{})
	ended := make(chan struct{})
	s := &store{query: func(ctx context.Context, _ int32) (product.Product, error) {
		defer close(ended)
		close(running)
		<-ctx.Done()
		return product.Product{}, ctx.Err()
	}}
	server, url, served := listen(t, s)
	failed := make(chan error, 1)
	go func() {
		resp, err := http.Get(url + "/product/coalesced/1") //nolint:noctx // the server ends the request
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if <-failed == nil {
		t.Error("the request was answered")
	}
	<-ended
	if err := <-served; err != nil {
		t.Error(err)
	}
}
