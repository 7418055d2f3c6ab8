package shadow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

const (
	// commandTimeout bounds a command, if the client obeys its context.
	commandTimeout = time.Second
	// askTimeEvery is how often Redis is asked for its time. While that is not known, it is
	// asked sooner, and ever later.
	askTimeEvery = time.Second

	pingAfter    = 10 * time.Second // without a message
	replyTimeout = 2 * time.Second
	minBackoff   = 50 * time.Millisecond
	maxBackoff   = time.Second
)

// run collects and judges the seconds until ctx ends, and then says goodbye.
func (f *Fleet) run(ctx context.Context) {
	f.judge.tick()
	timer := time.NewTimer(f.judge.untilNext())
	defer timer.Stop()
	defer close(f.outbox)
	for {
		select {
		case <-ctx.Done():
			bye := &report{replica: f.id, second: f.judge.next, gone: true}
			select {
			case f.outbox <- bye.encode():
			default:
			}
			return
		case message := <-f.received:
			f.judge.take(message)
			continue
		case <-timer.C:
		}
		f.judge.tick()
		timer.Reset(f.judge.untilNext())
	}
}

// send publishes the reports, and asks Redis for its time, until there are no more reports.
func (f *Fleet) send(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := minBackoff
	for {
		select {
		case report, ok := <-f.outbox:
			if !ok {
				return
			}
			within, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTimeout)
			_ = f.transport.publish(within, report) // if it is lost, the second does not count
			cancel()
		case <-timer.C:
			if f.askTime(ctx) {
				wait = askTimeEvery
			} else {
				wait = min(2*wait, askTimeEvery)
			}
			timer.Reset(wait)
		}
	}
}

// askTime returns whether Redis has told its time.
func (f *Fleet) askTime(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	sent := f.now()
	told, err := f.transport.time(ctx)
	if err == nil {
		f.clock.told(told, sent, f.now())
	}
	return err == nil
}

// transport is what connects the replicas of a fleet.
type transport interface {
	publish(ctx context.Context, report []byte) error
	// receive passes all reports on, also this replica's own, until ctx ends.
	receive(ctx context.Context, deliver func([]byte))
	// time returns the time of the one clock that the fleet has, in µs since 1970.
	time(ctx context.Context) (int64, error)
}

// redisTransport is a Pub/Sub channel of Redis, and Redis' clock.
type redisTransport struct {
	client  redis.UniversalClient
	channel string
}

func newRedisTransport(client redis.UniversalClient, namespace string) *redisTransport {
	database, _ := protocol.Database(client)
	return &redisTransport{client, fmt.Sprintf("%s:shadow@%d", namespace, database)}
}

func (t *redisTransport) publish(ctx context.Context, report []byte) error {
	return t.client.Publish(ctx, t.channel, report).Err()
}

func (t *redisTransport) time(ctx context.Context) (int64, error) {
	var server redis.Cmdable = t.client
	if cluster, ok := t.client.(*redis.ClusterClient); ok { // each of its servers has a clock
		one, err := cluster.MasterForKey(ctx, t.channel)
		if err != nil {
			return 0, err
		}
		server = one
	}
	now, err := server.Time(ctx).Result()
	return now.UnixMicro(), err
}

func (t *redisTransport) receive(ctx context.Context, deliver func([]byte)) {
	backoff := minBackoff
	for ctx.Err() == nil {
		if t.subscribe(ctx, deliver) {
			backoff = minBackoff
		}
		select {
		case <-time.After(backoff):
		case <-ctx.Done():
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// subscribe passes reports on until the connection fails. It returns whether there was one.
func (t *redisTransport) subscribe(ctx context.Context, deliver func([]byte)) (connected bool) {
	pubsub := t.client.Subscribe(ctx)
	// ReceiveTimeout does not watch its context while it waits.
	stop := context.AfterFunc(ctx, func() { _ = pubsub.Close() })
	defer func() {
		if stop() {
			_ = pubsub.Close()
		}
	}()
	if err := pubsub.Subscribe(ctx, t.channel); err != nil {
		return false
	}
	limit := replyTimeout
	for {
		message, err := pubsub.ReceiveTimeout(ctx, limit)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() && limit == pingAfter {
			limit = replyTimeout
			if pubsub.Ping(ctx) != nil {
				return connected
			}
			continue
		}
		if err != nil {
			return connected
		}
		connected, limit = true, pingAfter
		if message, ok := message.(*redis.Message); ok {
			deliver([]byte(message.Payload))
		}
	}
}

// loopback connects a replica that is alone with itself.
type loopback struct{ deliver chan []byte }

func newLoopback() *loopback { return &loopback{make(chan []byte, 4)} }

func (l *loopback) publish(ctx context.Context, report []byte) error {
	select {
	case l.deliver <- report:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *loopback) receive(ctx context.Context, deliver func([]byte)) {
	for {
		select {
		case report := <-l.deliver:
			deliver(report)
		case <-ctx.Done():
			return
		}
	}
}

func (*loopback) time(context.Context) (int64, error) { return time.Now().UnixMicro(), nil }
