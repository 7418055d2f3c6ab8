package load

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
)

// dials counts the connections, and how many of them there were at the first write.
type dials struct {
	opened, atFirstWrite atomic.Int64
}

func (d *dials) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	d.opened.Add(1)
	return countedConn{conn, d}, nil
}

type countedConn struct {
	net.Conn
	dials *dials
}

func (c countedConn) Write(b []byte) (int, error) {
	c.dials.atFirstWrite.CompareAndSwap(0, c.dials.opened.Load())
	return c.Conn.Write(b)
}

func TestRunConnectsBeforeItSendsWhenAskedTo(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	var d dials
	r, err := Run(t.Context(), Config{URLs: []string{server.URL}, Requests: 200, Concurrency: 50, Connect: true, dial: d.dial})
	if err != nil || r.OK != 200 || d.atFirstWrite.Load() != 50 || d.opened.Load() != 50 {
		t.Errorf("%v, %d ok, %d connections before the first request, %d in all", err, r.OK, d.atFirstWrite.Load(), d.opened.Load())
	}
	server.Close()
	if _, err := Run(t.Context(), Config{URLs: []string{server.URL}, Requests: 2, Concurrency: 2, Connect: true}); err == nil {
		t.Error("a server that is gone is connected to")
	}
}
