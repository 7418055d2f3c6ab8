package coalescehttp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/local"
)

func TestTheLeaderReadsWhileTheBodyComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		all := replicas(2, s)
		leader := call(all[0])
		synctest.Wait()
		follower := call(all[1])
		synctest.Wait()
		body := s.answers(-1, "X-A", "1")
		resp := leader.answered(t)
		if _, err := body.Write([]byte("one ")); err != nil {
			t.Fatal(err)
		}
		some := make([]byte, 10)
		if n, err := resp.Body.Read(some); string(some[:n]) != "one " || err != nil {
			t.Fatalf("the leader reads %q, %v", some[:n], err)
		}
		follower.waits(t)
		_, _ = body.Write([]byte("two"))
		_ = body.Close()
		// The leader does not read on, and nobody waits for it.
		other := follower.answered(t)
		if got := whole(t, other); got != "one two" || other.ContentLength != 7 || other.Header.Get(coalescehttp.RoleHeader) != "remote-follower" {
			t.Errorf("the follower has %q of %d bytes, %v", got, other.ContentLength, other.Header)
		}
		if got := whole(t, resp); got != "two" || resp.Header.Get(coalescehttp.RoleHeader) != "leader" {
			t.Errorf("the leader has %q, %v", got, resp.Header)
		}
		if len(s.asked) > 0 {
			t.Error("the server was asked again")
		}
	})
}

// TestALeaderLeavesAtAnyMomentAndHurtsNobody has it leave after each step of the answer.
func TestALeaderLeavesAtAnyMomentAndHurtsNobody(t *testing.T) {
	for _, at := range []string{"before the header", "after the header", "in the body", "by Close", "after the body"} {
		t.Run(at, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer()
				all := replicas(2, s)
				leader := call(all[0])
				synctest.Wait()
				local, remote := call(all[0]), call(all[1])
				synctest.Wait()
				leave := func(now string) {
					synctest.Wait()
					if now == at {
						leader.leave()
						synctest.Wait()
					}
				}
				leave("before the header")
				body := s.answers(8)
				leave("after the header")
				_, _ = body.Write([]byte("half"))
				leave("in the body")
				if at == "by Close" {
					_ = leader.answered(t).Body.Close()
					synctest.Wait()
				}
				_, _ = body.Write([]byte("half"))
				_ = body.Close()
				leave("after the body")
				for _, c := range []*caller{local, remote} {
					if got := whole(t, c.answered(t)); got != "halfhalf" {
						t.Errorf("a follower has %q", got)
					}
				}
				if len(s.asked) > 0 {
					t.Error("the server was asked again")
				}
			})
		})
	}
}

func TestARequestThatNobodyWaitsForAnyMoreIsCancelled(t *testing.T) {
	for _, header := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s := newServer()
			all := replicas(2, s)
			leader := call(all[0])
			synctest.Wait()
			follower := call(all[1])
			synctest.Wait()
			sent := <-s.asked
			if header {
				resp, _ := reply(sent, -1)
				s.resp <- resp
			}
			synctest.Wait()
			leader.leave()
			synctest.Wait()
			if sent.Context().Err() != nil {
				t.Error("it was cancelled though a follower waits")
			}
			follower.leave()
			synctest.Wait()
			if sent.Context().Err() == nil {
				t.Error("it goes on though nobody waits")
			}
		})
	}
}

func TestABodyOverTheLimitReachesTheLeaderOnceAndWholeAndFollowersAskThemselves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		all := replicas(2, s, coalescehttp.WithBodyLimit(10))
		leader := call(all[0])
		synctest.Wait()
		follower := call(all[1])
		synctest.Wait()
		body := s.answers(-1)
		wrote := make(chan int, 100)
		go func() {
			for i := range 100 {
				_, _ = body.Write([]byte("12345"))
				wrote <- i
			}
			_ = body.Close()
		}()
		synctest.Wait()
		if len(wrote) >= 100 {
			t.Error("the server is not held back by a leader that does not read")
		}
		own := s.answers(3)
		go func() {
			_, _ = own.Write([]byte("own"))
			_ = own.Close()
		}()
		resp := follower.answered(t)
		if got := whole(t, resp); got != "own" || resp.Header.Get(coalescehttp.RoleHeader) != "alone" {
			t.Errorf("the follower has %q, %v", got, resp.Header)
		}
		if got := whole(t, leader.answered(t)); got != strings.Repeat("12345", 100) {
			t.Errorf("the leader has %d bytes", len(got))
		}
		// The key is remembered: the next two are answered at once, each for itself.
		for range 2 {
			call(all[1])
		}
		synctest.Wait()
		if len(s.asked) != 2 {
			t.Errorf("%d requests are sent", len(s.asked))
		}
		for range 2 {
			_ = s.answers(0).Close()
		}
	})
}

func TestABodyThatTakesTooLongIsTheLeadersAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		all := replicas(2, s, coalescehttp.WithBodyTimeout(time.Second))
		leader := call(all[0])
		synctest.Wait()
		follower := call(all[1])
		synctest.Wait()
		body := s.answers(-1)
		_, _ = body.Write([]byte("first "))
		time.Sleep(time.Second)
		own := s.answers(-1)
		resp := leader.answered(t)
		follower.answered(t).Body.Close()
		time.Sleep(10 * time.Hour)
		_, _ = body.Write([]byte("last"))
		_ = body.Close()
		if got := whole(t, resp); got != "first last" {
			t.Errorf("after ten hours the leader has %q", got)
		}
		_ = own.Close()
	})
}

func TestAPrivateStreamGoesOnForHoursAndEndsWithItsOwnRequest(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		all := replicas(1, s)
		leader := call(all[0])
		sent := <-s.asked
		resp, body := reply(sent, -1, "Content-Type", "text/event-stream")
		s.resp <- resp
		own := leader.answered(t)
		for range 10 {
			time.Sleep(time.Hour)
			go func() { _, _ = body.Write([]byte("event")) }()
			if _, err := io.ReadFull(own.Body, make([]byte, 5)); err != nil {
				t.Fatal(err)
			}
		}
		leader.leave()
		synctest.Wait()
		if sent.Context().Err() == nil {
			t.Error("it goes on after its caller has left")
		}
	})
}

func (slowly) Error() string { return "slowly" }
func (slowly) Timeout() bool { return true }

func TestEachCallerHasItsOwnDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		transport := coalescehttp.NewTransport(s, local.Tier(new(local.Group[string, *coalescehttp.Answer])))
		leader := call(transport)
		synctest.Wait()
		hurried := &http.Client{Transport: transport, Timeout: time.Second}
		began := time.Now()
		_, err := hurried.Get("http://server.example/page")
		var timeout net.Error
		if took := time.Since(began); took != time.Second || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("after %v: %v", took, err)
		}
		_ = s.answers(0).Close()
		whole(t, leader.answered(t))
	})
}

func TestAFollowersAnswerIsItsOwn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer()
		transport := coalescehttp.NewTransport(s, local.Tier(new(local.Group[string, *coalescehttp.Answer])))
		leader := call(transport)
		synctest.Wait()
		one, two := call(transport), call(transport)
		synctest.Wait()
		body := s.answers(4, "X-A", "1")
		first := leader.answered(t)
		first.Header.Set("X-A", "changed")
		_, _ = body.Write([]byte("body"))
		_ = body.Close()
		a, b := one.answered(t), two.answered(t)
		a.Header.Set("X-A", "changed")
		if b.Header.Get("X-A") != "1" || b.Status != "200 OK" || b.StatusCode != 200 || b.Proto != "HTTP/1.1" || b.ContentLength != 4 || b.Request == nil || b.Request == a.Request {
			t.Errorf("%+v", b)
		}
		if whole(t, a) != "body" || whole(t, b) != "body" || whole(t, first) != "body" {
			t.Error("they have not one body each")
		}
	})
}

// DoMany makes groupFunc a coalesce.Group.
func (groupFunc) DoMany(context.Context, []string, func(context.Context, []string) (map[string]*coalescehttp.Answer, error)) (map[string]coalesce.Result[*coalescehttp.Answer], error) {
	panic("it is not called")
}

// Forget makes groupFunc a coalesce.Group.
func (groupFunc) Forget(context.Context, ...string) error { return nil }
