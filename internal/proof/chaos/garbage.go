package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// tap listens to the replicas' messages, for the garbage to be like them.
type tap struct {
	pubsub *redis.PubSub
	done   sync.WaitGroup

	mu   sync.Mutex
	last map[string]string // by channel
}

func startTap(client *redis.Client) *tap {
	t := &tap{pubsub: client.PSubscribe(context.Background(), namespace+"*"), last: map[string]string{}}
	messages := t.pubsub.Channel()
	t.done.Go(func() {
		for m := range messages {
			t.mu.Lock()
			t.last[m.Channel] = m.Payload
			t.mu.Unlock()
		}
	})
	return t
}

func (t *tap) close() {
	_ = t.pubsub.Close()
	t.done.Wait()
}

func (t *tap) lastOn(channel string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last[channel]
}

// mangled returns garbage that nobody can take for an outcome, a lease, or a
// number: random bytes, or a real text that was cut, or is of a version or a
// kind that does not exist.
func mangled(text string, random *rand.Rand) string {
	b := []byte(text)
	switch random.IntN(4) {
	case 0:
		if len(b) > 1 {
			return string(b[:random.IntN(len(b)-1)])
		}
	case 1:
		if len(b) > 1 {
			b[0] += byte(1 + random.IntN(254)) // any version but the real one
			return string(b)
		}
	case 2:
		if len(b) > 1 {
			b[1] = byte(9 + random.IntN(247))
			return string(b)
		}
	}
	b = make([]byte, 1+random.IntN(100))
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return "\xff" + string(b)
}

// spoilKeys overwrites every key of the fleet. Garbage that nobody has asked
// for after a lease TTL, and that would last, is removed, so that no later
// fault is blamed for it.
func spoilKeys(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	random = split(random)
	spoiled := e.eachKey(func(ctx context.Context, key string) error { return e.spoilKey(ctx, key, random) })
	e.pause(ctx, leaseTTL)
	removed := e.eachKey(func(ctx context.Context, key string) error {
		if lives, err := e.admin.PTTL(ctx, key).Result(); err != nil || lives >= 0 {
			return err
		}
		return e.admin.Del(ctx, key).Err()
	})
	return errors.Join(spoiled, removed, end())
}

func (e episode) eachKey(do func(ctx context.Context, key string) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var errs []error
	keys := e.admin.Scan(ctx, 0, namespace+"*", 1000).Iterator()
	for keys.Next(ctx) {
		errs = append(errs, do(ctx, keys.Val()))
	}
	return errors.Join(append(errs, keys.Err())...)
}

func (e episode) spoilKey(ctx context.Context, key string, random *rand.Rand) error {
	pipe := e.admin.TxPipeline()
	switch random.IntN(4) {
	case 0:
		pipe.Del(ctx, key)
		pipe.HSet(ctx, key, "finished", mangled("", random), "outcome", mangled("", random))
	case 1:
		pipe.Del(ctx, key)
		pipe.RPush(ctx, key, mangled("", random))
	case 2:
		pipe.Set(ctx, key, mangled("", random), redis.KeepTTL)
	default:
		lease := ""
		if strings.HasSuffix(key, ":lease") {
			lease, _ = e.admin.Get(ctx, key).Result()
		}
		if strings.Contains(key, ":result:") {
			outcome, _ := e.admin.Get(ctx, key).Result() // or a piece of a large one
			pipe.Set(ctx, key, mangled(outcome, random), redis.KeepTTL)
			break
		}
		if strings.HasSuffix(key, ":latest") {
			outcome, _ := e.admin.HGet(ctx, key, "outcome").Result()
			pipe.HSet(ctx, key, "outcome", mangled(outcome, random))
			break
		}
		pipe.Set(ctx, key, ghost(lease, random), 0)
	}
	_, err := pipe.Exec(ctx)
	var reply redis.Error
	if errors.As(err, &reply) {
		return nil // the key was of another type meanwhile
	}
	return err
}

// ghost returns a lease of a flight that does not exist.
func ghost(lease string, random *rand.Rand) string {
	if len(lease) < 24 {
		return mangled(lease, random)
	}
	return lease[:1] + fmt.Sprintf("ghost-%016x", random.Uint64()) + lease[23:]
}

// spoilMessages publishes garbage on every channel, for a while.
func spoilMessages(ctx context.Context, e episode, random *rand.Rand) error {
	end := e.begin("", held{})
	var errs []error
	for range 5 {
		errs = append(errs, e.publishGarbage(split(random)))
		e.pause(ctx, between(random, 0, 200*time.Millisecond))
	}
	return errors.Join(append(errs, end())...)
}

func (e episode) publishGarbage(random *rand.Rand) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	channels, err := e.admin.PubSubChannels(ctx, namespace+"*").Result()
	if err != nil {
		return err
	}
	pipe := e.admin.Pipeline()
	for _, channel := range channels {
		pipe.Publish(ctx, channel, mangled("", random))
		pipe.Publish(ctx, channel, mangled(e.tap.lastOn(channel), random))
		if flight := e.flightOn(ctx, channel); flight != "" {
			// An outcome of the flight that somebody waits for, by a replica
			// of another version.
			pipe.Publish(ctx, channel, string([]byte{0xff, 1})+flight+"\x00\x00\x00\x00\x00\x00\x00\x00\x04json\"a value\"")
		}
	}
	_, err = pipe.Exec(ctx)
	return err
}

func (e episode) flightOn(ctx context.Context, channel string) string {
	key, _, _ := strings.Cut(channel, "@") // its database's number
	lease, err := e.admin.Get(ctx, key+":lease").Result()
	if err != nil || len(lease) < 23 {
		return ""
	}
	return lease[1:23]
}
