package redislink

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// BenchmarkCommand sends a small command on the caller's goroutine, and through the queue,
// to a client that answers in no time.
func BenchmarkCommand(b *testing.B) {
	client := redis.NewClient(&redis.Options{})
	defer client.Close()
	client.AddHook(instant{})
	l := newLinkTo(client, Config{Timeout: time.Second})
	defer l.Close()
	command := join("k")
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := l.NewRequest(context.Background(), command)
			if !l.SendHere(r) {
				b.Fatal("it waits its turn")
			}
			if _, err := l.Result(r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("queued", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Do(context.Background(), command); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// instant is a fakeRedis that notes nothing.
type instant struct{}

func (instant) DialHook(next redis.DialHook) redis.DialHook { return next }

func (instant) ProcessHook(redis.ProcessHook) redis.ProcessHook {
	return func(_ context.Context, cmd redis.Cmder) error {
		cmd.(*redis.Cmd).SetVal(int64(1))
		return nil
	}
}

func (instant) ProcessPipelineHook(redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(_ context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			cmd.(*redis.Cmd).SetVal(int64(1))
		}
		return nil
	}
}
