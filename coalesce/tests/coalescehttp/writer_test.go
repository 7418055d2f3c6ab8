package coalescehttp_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
)

func TestAFlushedAnswerIsAStreamAndItsClientsAlone(t *testing.T) {
	g, flushed := newGate(), newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, "now ")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		_ = flushed.pass(r.Context())
		_, _ = io.WriteString(w, "later")
	})
	client := newClient(t)
	leader, follower := lead(t, f, client, urls, g)
	g.open()
	eventually(t, "both are streamed to at once", func() bool { return flushed.inside.Load() == 2 })
	flushed.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.body != "now later" || a.role() != "alone" || a.header.Get(coalescehttp.FlightHeader) != "" {
			t.Errorf("%+v", a)
		}
	}
}

func TestAHijackedConnectionIsItsClientsAlone(t *testing.T) {
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		_ = g.pass(r.Context())
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = buffered.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nmy")
		_ = buffered.Flush()
	})
	client := newClient(t)
	leader, follower := lead(t, f, client, urls, g)
	g.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.body != "my" || a.err != nil {
			t.Errorf("%+v", a)
		}
	}
	if n := g.entered.Load(); n != 2 {
		t.Errorf("%d handlers ran", n)
	}
}

func TestEarlyHintsAreForTheLeadersClient(t *testing.T) {
	g := newGate()
	f, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		_ = g.pass(r.Context())
		_, _ = io.WriteString(w, "page")
	})
	hints := make(chan string, 2)
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		hints <- fmt.Sprint(code, " ", header.Get("Link"))
		return nil
	}})
	client := newClient(t)
	leader := get(ctx, client, urls[0], "Host", "same")
	if hint := <-hints; hint != "103 </style.css>; rel=preload" {
		t.Errorf("the leader's client is told %q", hint)
	}
	follower := get(ctx, client, urls[1], "Host", "same")
	eventually(t, "the second follows", func() bool { return f.waiting() == 2 })
	g.open()
	for _, ch := range []<-chan answer{leader, follower} {
		if a := <-ch; a.body != "page" || a.status != http.StatusOK || a.header.Get("Link") == "" {
			t.Errorf("%+v", a)
		}
	}
	if len(hints) > 0 {
		t.Error("the follower was told too")
	}
}

func TestAHandlerThatWritesAfterItHasReturnedIsTold(t *testing.T) {
	failed := make(chan error, 1)
	_, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		context.AfterFunc(r.Context(), func() {
			_, err := io.WriteString(w, "late")
			failed <- err
		})
		_, _ = io.WriteString(w, "page")
	})
	if a := <-ask(t, newClient(t), urls[0]); a.body != "page" {
		t.Errorf("%+v", a)
	}
	if err := <-failed; err == nil {
		t.Error("a write after the end is fine")
	}
}

func TestAResponseControllerWorksOnTheLeadersConnection(t *testing.T) {
	_, urls := twoReplicas(t, func(w http.ResponseWriter, r *http.Request) {
		c := http.NewResponseController(w)
		later := time.Now().Add(time.Hour)
		if err := errors.Join(c.SetReadDeadline(later), c.SetWriteDeadline(later), c.EnableFullDuplex()); err != nil {
			t.Error(err)
		}
		if _, err := bufio.NewReader(r.Body).ReadByte(); err != io.EOF {
			t.Errorf("the body of a GET reads %v", err)
		}
		if err := r.ParseForm(); err != nil || r.Form.Get("a") != "1" {
			t.Errorf("the form is %v, %v", r.Form, err)
		}
		r.Header.Set("X-Changed", "by the handler")
		_, _ = io.WriteString(w, "page")
	})
	if a := <-ask(t, newClient(t), urls[0]+"?a=1"); a.body != "page" || a.role() != "leader" {
		t.Errorf("%+v", a)
	}
}
