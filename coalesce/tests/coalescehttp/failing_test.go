package coalescehttp_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestABodyThatIsCutIsAnErrorForAllAndNotAskedForAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		all := replicas(2, s)
		leader := call(all[0])
		synctest.Wait()
		local, remote := call(all[0]), call(all[1])
		synctest.Wait()
		body := s.answers(100)
		_, _ = body.Write([]byte("half"))
		body.CloseWithError(io.ErrUnexpectedEOF)
		resp := leader.answered(t)
		if data, err := io.ReadAll(resp.Body); string(data) != "half" || err != io.ErrUnexpectedEOF {
			t.Errorf("the leader has %q, %v", data, err)
		}
		for _, c := range []*caller{local, remote} {
			if err := c.failed(t); !errors.Is(err, coalescehttp.ErrCutShort) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("a follower has %v", err)
			}
		}
		if len(s.asked) > 0 {
			t.Error("the server was asked again")
		}
	})
}

// unreachable is a base whose server refuses connections; it counts them.
func unreachable(asked *int) base {
	return func(*http.Request) (*http.Response, error) {
		*asked++
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
}

func TestAReplicaThatCannotReachItsServerLeavesThatToOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		fleet, s := newFleet(2), newServer()
		refuse := make(chan struct{})
		lame := coalescehttp.NewTransport(base(func(*http.Request) (*http.Response, error) {
			<-refuse
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}), fleet.groups[0])
		well := coalescehttp.NewTransport(s, fleet.groups[1])
		leader := call(lame)
		synctest.Wait()
		local, one, two := call(lame), call(well), call(well)
		synctest.Wait()
		close(refuse)
		for _, c := range []*caller{leader, local} {
			if err := c.failed(t); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a caller of the replica that cannot reach its server has %v", err)
			}
		}
		body := s.answers(4)
		_, _ = body.Write([]byte("well"))
		_ = body.Close()
		for _, c := range []*caller{one, two} {
			if got := whole(t, c.answered(t)); got != "well" {
				t.Errorf("a caller of the other replica has %q", got)
			}
		}
		if len(s.asked) > 0 {
			t.Error("the other server was asked more than once")
		}
	})
}

func TestAServerThatNobodyCanReachIsTriedThreeTimes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asked, begin := 0, make(chan struct{})
		all := replicas(5, base(func(r *http.Request) (*http.Response, error) {
			<-begin
			time.Sleep(time.Millisecond) // nobody is late for a try that takes its time
			return unreachable(&asked)(r)
		}))
		var callers []*caller
		for _, transport := range all {
			callers = append(callers, call(transport), call(transport))
			synctest.Wait()
		}
		close(begin)
		time.Sleep(time.Second)
		for _, c := range callers {
			if err := c.failed(t); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a caller has %v", err)
			}
		}
		if asked != 3 {
			t.Errorf("the server was tried %d times", asked)
		}
	})
}

// slowly is a timeout of the base's own.
type slowly struct{}

func TestATimeoutOfTheServerIsEverybodysAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		asked, begin := 0, make(chan struct{})
		all := replicas(2, base(func(*http.Request) (*http.Response, error) {
			asked++
			<-begin
			return nil, slowly{}
		}))
		leader := call(all[0])
		synctest.Wait()
		follower := call(all[1])
		synctest.Wait()
		close(begin)
		for _, c := range []*caller{leader, follower} {
			err := c.failed(t)
			var timeout net.Error
			if !errors.As(err, &timeout) || !timeout.Timeout() {
				t.Errorf("a caller has %v, which is no timeout", err)
			}
		}
		if asked != 1 {
			t.Errorf("the server was asked %d times", asked)
		}
	})
}

func TestAPanicOfTheBaseIsEachCallersInItsProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		begin := make(chan struct{})
		transport := coalescehttp.NewTransport(base(func(*http.Request) (*http.Response, error) {
			<-begin
			panic("boom")
		}), local.Tier(new(local.Group[string, *coalescehttp.Answer])))
		panics := make(chan any, 2)
		for range 2 {
			go func() {
				defer func() { panics <- recover() }()
				_, _ = transport.RoundTrip(mustRequest())
			}()
			synctest.Wait()
		}
		close(begin)
		for range 2 {
			if value := <-panics; value != "boom" {
				t.Errorf("a caller panics with %v", value)
			}
		}
	})
}

func TestCallersOfAClosedFleetAreAlone(t *testing.T) {
	var roles []string
	closed := groupFunc(func() (*coalescehttp.Answer, coalesce.Role, error) { return nil, 0, coalesce.ErrClosed })
	transport := coalescehttp.NewTransport(base(func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(nil)), Request: r}, nil
	}), closed, coalescehttp.WithObserver(func(_ *http.Request, d coalescehttp.Decision) { roles = append(roles, d.Role+" "+string(d.Reason)) }))
	resp, err := transport.RoundTrip(mustRequest())
	if err != nil || resp.Header.Get(coalescehttp.RoleHeader) != "alone" || len(roles) != 1 || roles[0] != "alone closed" {
		t.Errorf("%v, %v, %q", resp, err, roles)
	}
}

// groupFunc is a Group that never calls the function.
type groupFunc func() (*coalescehttp.Answer, coalesce.Role, error)

// Do makes groupFunc a coalesce.Group.
func (g groupFunc) Do(context.Context, string, func(context.Context) (*coalescehttp.Answer, error)) (*coalescehttp.Answer, coalesce.Role, error) {
	return g()
}

func TestErrorsOfTheGroupAreThoseOfItsCallers(t *testing.T) {
	for _, want := range []error{coalesce.ErrPoisoned, coalesce.ErrUnavailable, coalesce.ErrFlightTimeout, coalesce.ErrRemotePanic} {
		transport := coalescehttp.NewTransport(base(func(*http.Request) (*http.Response, error) {
			t.Error("the server was asked")
			return nil, nil
		}), groupFunc(func() (*coalescehttp.Answer, coalesce.Role, error) { return nil, 0, want }))
		if _, err := transport.RoundTrip(mustRequest()); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
	}
}
