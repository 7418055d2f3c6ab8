package coalescehttp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

// panicking is a body whose Read panics.
type panicking struct{}

func (panicking) Read([]byte) (int, error) { panic("of the body") }
func (panicking) Close() error             { return nil }

// TestABaseThatIsWrittenByHandDoesAsItDoesWithoutTheTransport has bases that an http.Client
// puts up with.
func TestABaseThatIsWrittenByHandDoesAsItDoesWithoutTheTransport(t *testing.T) {
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for name, test := range map[string]struct {
			resp *http.Response
			ok   bool
		}{
			"neither header nor body":  {&http.Response{StatusCode: http.StatusOK}, true},
			"a private one, no body":   {&http.Response{StatusCode: http.StatusOK, Header: http.Header{"Cache-Control": {"private"}}}, true},
			"no body but a length":     {&http.Response{StatusCode: http.StatusOK, ContentLength: 5}, false},
			"neither answer nor error": {nil, false},
		} {
			t.Run(method+" "+name, func(t *testing.T) {
				b := base(func(*http.Request) (*http.Response, error) { return test.resp, nil })
				client := &http.Client{Transport: coalescehttp.NewTransport(b, local.Tier(new(local.Group[string, *coalescehttp.Answer])))}
				r := mustRequest()
				r.Method = method
				resp, err := client.Do(r)
				if (err == nil) != test.ok {
					t.Fatalf("%v, %v", resp, err)
				}
				if err == nil && whole(t, resp) != "" {
					t.Error("it has a body")
				}
			})
		}
	}
}

func TestABodyThatPanicsIsAnErrorOfItsReaders(t *testing.T) {
	b := base(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, ContentLength: -1, Body: panicking{}}, nil
	})
	resp, err := replicas(1, b)[0].RoundTrip(mustRequest())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var lost *coalesce.PanicError
	if _, err := io.ReadAll(resp.Body); !errors.As(err, &lost) || lost.Value != "of the body" {
		t.Errorf("its reader gets %v", err)
	}
}

// goingOn is a Group whose function goes on, when its caller has left, for others. It begins
// when start is closed.
type goingOn struct {
	groupFunc
	start chan struct{}
}

// Do makes goingOn a coalesce.Group.
func (g goingOn) Do(ctx context.Context, _ string, fn func(context.Context) (*coalescehttp.Answer, error)) (*coalescehttp.Answer, coalesce.Role, error) {
	go func() {
		<-g.start
		_, _ = fn(context.WithoutCancel(ctx))
	}()
	<-ctx.Done()
	return nil, coalesce.Leader, ctx.Err()
}

// TestACallerThatHasLeftMayUseItsRequestAgain is for the race detector: whoever tries again
// past a deadline changes the header of the same request.
func TestACallerThatHasLeftMayUseItsRequestAgain(t *testing.T) {
	for _, at := range []string{"before it is sent", "before the answer", "while the body comes"} {
		t.Run(at, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, start := newServer(), make(chan struct{})
				transport := coalescehttp.NewTransport(s, goingOn{start: start})
				ctx, leave := context.WithCancel(t.Context())
				r := mustRequest().WithContext(ctx)
				r.Header.Set("X-Try", "1")
				returned := make(chan error, 1)
				go func() {
					resp, err := transport.RoundTrip(r)
					if err == nil {
						_, err = io.ReadAll(resp.Body)
						_ = resp.Body.Close()
					}
					returned <- err
				}()
				step := func(now string, do func()) {
					if now == at {
						leave()
						if err := <-returned; !errors.Is(err, context.Canceled) {
							t.Errorf("the caller gets %v", err)
						}
						go func() {
							for range 100 {
								r.Header.Set("X-Try", "2")
							}
						}()
					}
					do()
					synctest.Wait()
				}
				step("before it is sent", func() { close(start) })
				var body *io.PipeWriter
				step("before the answer", func() {
					if got := len(s.asked); got != 1 {
						t.Fatalf("%d requests are sent", got)
					}
					body = s.answers(4, "Vary", "X-Try")
					time.Sleep(10 * time.Millisecond)
				})
				step("while the body comes", func() {
					_, _ = body.Write([]byte("body"))
					_ = body.Close()
				})
				leave()
			})
		})
	}
}

func TestABodyThatIsReadPastItsCallersDeadlineSaysSo(t *testing.T) {
	for _, fields := range [][]string{{"Cache-Control", "public"}, {"Cache-Control", "private"}} {
		bubble(t, func(t *testing.T) {
			s := newServer()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			go s.answers(-1, fields...)
			resp, err := replicas(1, s)[0].RoundTrip(mustRequest().WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadAll(resp.Body); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v", fields, err)
			}
		})
	}
}

func TestAnErrorOfTheFlightIsNotTakenForTheAnswerThatOuterHandlersHaveDescribed(t *testing.T) {
	group := groupFunc(func() (*coalescehttp.Answer, coalesce.Role, error) { return nil, 0, coalesce.ErrPoisoned })
	inner := coalescehttp.Middleware(group)(http.NotFoundHandler())
	w := httptest.NewRecorder()
	for name, value := range map[string]string{"Cache-Control": "public, max-age=3600", "Content-Length": "1", "Content-Encoding": "gzip", "Etag": `"1"`} {
		w.Header().Set(name, value)
	}
	inner.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/page", nil))
	h := w.Header()
	if w.Code != http.StatusServiceUnavailable || h.Get("Cache-Control") != "no-store" || h["Content-Length"] != nil || h["Content-Encoding"] != nil || h["Etag"] != nil {
		t.Errorf("%d %v", w.Code, h)
	}
}
