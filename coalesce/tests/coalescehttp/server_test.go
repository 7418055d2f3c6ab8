package coalescehttp_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

// base is a way to a server that a test is.
type base func(*http.Request) (*http.Response, error)

// RoundTrip makes base an http.RoundTripper.
func (b base) RoundTrip(r *http.Request) (*http.Response, error) { return b(r) }

// reply is an answer whose body the test writes.
func reply(r *http.Request, length int64, fields ...string) (*http.Response, *io.PipeWriter) {
	body, write := io.Pipe()
	context.AfterFunc(r.Context(), func() { write.CloseWithError(r.Context().Err()) })
	header := http.Header{}
	for i := 0; i < len(fields); i += 2 {
		header.Add(fields[i], fields[i+1])
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: header, Body: body, ContentLength: length, Request: r,
	}, write
}

// caller is a caller of a Transport that reads when a test says so.
type caller struct {
	leave context.CancelFunc
	resp  chan *http.Response
	err   chan error
}

func call(t http.RoundTripper, fields ...string) *caller {
	ctx, cancel := context.WithCancel(context.Background())
	c := &caller{cancel, make(chan *http.Response, 1), make(chan error, 1)}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server.example/page", nil)
	if err != nil {
		panic(err)
	}
	for i := 0; i < len(fields); i += 2 {
		r.Header.Add(fields[i], fields[i+1])
	}
	go func() {
		resp, err := t.RoundTrip(r)
		if err != nil {
			c.err <- err
			return
		}
		c.resp <- resp
	}()
	return c
}

// answered returns the answer of a call that has one once all else is blocked.
func (c *caller) answered(t *testing.T) *http.Response {
	t.Helper()
	time.Sleep(10 * time.Millisecond) // for a body that might come with the header
	synctest.Wait()
	select {
	case resp := <-c.resp:
		return resp
	case err := <-c.err:
		t.Fatalf("the call failed: %v", err)
	default:
		t.Fatal("the call waits")
	}
	return nil
}

func (c *caller) failed(t *testing.T) error {
	t.Helper()
	synctest.Wait()
	select {
	case resp := <-c.resp:
		t.Fatalf("the call has an answer: %v", resp.Status)
	case err := <-c.err:
		return err
	default:
		t.Fatal("the call waits")
	}
	return nil
}

func (c *caller) waits(t *testing.T) {
	t.Helper()
	synctest.Wait()
	if len(c.resp) > 0 || len(c.err) > 0 {
		t.Fatal("the call has ended")
	}
}

// whole reads a body to its end, and closes it.
func whole(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("after %d bytes: %v", len(data), err)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// replicas returns a Transport for each replica of a fleet.
func replicas(n int, b http.RoundTripper, opts ...coalescehttp.Option) (all []*coalescehttp.Transport) {
	for _, group := range newFleet(n).groups {
		all = append(all, coalescehttp.NewTransport(b, group, opts...))
	}
	return all
}

// server is a base that a test answers for.
type server struct {
	asked chan *http.Request
	resp  chan *http.Response
}

func newServer() *server {
	return &server{make(chan *http.Request, 100), make(chan *http.Response, 100)}
}

// RoundTrip makes server an http.RoundTripper.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked <- r
	select {
	case resp := <-s.resp:
		return resp, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// answers answers one request, and returns what writes its body.
func (s *server) answers(length int64, fields ...string) *io.PipeWriter {
	resp, write := reply(<-s.asked, length, fields...)
	s.resp <- resp
	return write
}

func bubble(t *testing.T, test func(t *testing.T)) { synctest.Test(t, test) }

func mustRequest() *http.Request {
	r, err := http.NewRequest(http.MethodGet, "http://server.example/page", nil)
	if err != nil {
		panic(err)
	}
	return r
}
