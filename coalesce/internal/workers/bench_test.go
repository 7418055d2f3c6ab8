package workers

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// instant is a connection to a Redis that answers in no time: what is measured is the
// way through the client.
type instant struct{ answer []byte }

func (c *instant) Write(b []byte) (int, error) {
	c.answer = []byte("+OK\r\n")
	if bytes.Contains(b, []byte("hello")) {
		c.answer = []byte("-ERR unknown command\r\n")
	}
	return len(b), nil
}

func (c *instant) Read(b []byte) (int, error) {
	n := copy(b, c.answer)
	c.answer = c.answer[n:]
	return n, nil
}

func (*instant) Close() error                     { return nil }
func (*instant) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*instant) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*instant) SetDeadline(time.Time) error      { return nil }
func (*instant) SetReadDeadline(time.Time) error  { return nil }
func (*instant) SetWriteDeadline(time.Time) error { return nil }

// BenchmarkClientCall calls a Redis client on this goroutine, on one of a Pool's, and
// on a fresh one. The way to another goroutine and back is in both of the latter.
func BenchmarkClientCall(b *testing.B) {
	client := redis.NewClient(&redis.Options{
		Dialer:   func(context.Context, string, string) (net.Conn, error) { return &instant{}, nil },
		Protocol: 2, DisableIdentity: true, ContextTimeoutEnabled: true,
	})
	defer client.Close()
	call := func() {
		if err := client.Do(context.Background(), "evalsha", "sha", 1, "key", "argument").Err(); err != nil {
			b.Error(err)
		}
	}
	b.Run("here", func(b *testing.B) {
		for b.Loop() {
			call()
		}
	})
	elsewhere := func(run func(func())) func(b *testing.B) {
		return func(b *testing.B) {
			done := make(chan struct{})
			for b.Loop() {
				run(func() {
					call()
					done <- struct{}{}
				})
				<-done
			}
		}
	}
	b.Run("workers.Pool", func(b *testing.B) {
		var p Pool
		defer p.Close()
		elsewhere(p.Run)(b)
	})
	b.Run("go", elsewhere(func(f func()) { go f() }))
}
