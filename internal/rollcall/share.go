package rollcall

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// maxShared is the size of the largest message that is shared, in bytes.
const maxShared = 64 << 20

var errTooLarge = errors.New("fleetcall: a shared message is too large")

// Shared is a message that one replica makes each interval, and that all replicas use which
// want it. Without it, each of N replicas that are watched would ask all N each second.
//
// No replica is chosen: who has made the last message makes the next one, and the others
// wait for it. When none comes for an interval and a while that differs from replica to
// replica, whoever notices first makes one. If two make messages, the one with the larger
// id stops as soon as it hears the other. A replica that begins makes one for itself, so
// that nobody who has just come waits, and then listens.
//
// Messages go through a channel of their own, to which only those subscribe that want them.
type Shared struct {
	member   *Member
	channel  string
	interval time.Duration
	produce  func(context.Context) ([]byte, error)

	mu      sync.Mutex
	wanted  context.Context // of those who want messages: it ends when nobody does
	maker   bool            // the last message that this replica knows of is its own
	since   time.Time       // when that was made or came
	heard   []byte          // a message of another replica that nobody has taken yet
	arrival chan struct{}   // closed when heard is set
}

// idLen is the length of the id that a shared message begins with: which replica made it.
var idLen = len(rand.Text())

// Share returns a Shared. All replicas that share messages must give the same topic, and
// none may give it twice. The function produce returns the next message; it must return early
// when its context ends.
func (m *Member) Share(topic string, interval time.Duration, produce func(context.Context) ([]byte, error)) *Shared {
	return &Shared{member: m, channel: m.questions + ":" + topic, interval: interval, produce: produce}
}

// Next returns the next message: one that this replica makes now, or waits for. It returns
// produce's error, or that of ctx. It must not be called concurrently, and as long as ctx
// is the same and has not ended, this replica listens to the others.
func (s *Shared) Next(ctx context.Context) ([]byte, error) {
	if s.begin(ctx) {
		message, err := s.produce(ctx)
		s.mu.Lock()
		s.since = time.Now()
		s.mu.Unlock()
		return message, err
	}
	for {
		s.mu.Lock()
		patience := time.Until(s.since.Add(s.interval + s.interval/4 + mathrand.N(s.interval/2)))
		message, arrival := s.heard, s.arrival
		s.heard = nil
		makes := s.maker || patience <= 0
		s.mu.Unlock()
		switch {
		case message != nil:
			return message, nil
		case makes:
			return s.makeForAll(ctx)
		}
		timer := time.NewTimer(patience)
		select {
		case <-arrival:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// begin returns true when ctx is new: then this replica begins to listen.
func (s *Shared) begin(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted == ctx {
		return false
	}
	s.wanted, s.maker, s.heard, s.arrival = ctx, false, nil, make(chan struct{})
	s.member.goroutines.Go(func() { s.listen(ctx) })
	return true
}

// makeForAll makes a message and sends it to the others. They do without it if that fails:
// one of them makes one.
func (s *Shared) makeForAll(ctx context.Context) ([]byte, error) {
	message, err := s.produce(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.maker, s.since = true, time.Now()
	s.mu.Unlock()
	packed, err := pack(message)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.member.config.Timeout)
	defer cancel()
	_ = s.member.config.Client.Publish(ctx, s.channel, s.member.id+packed).Err()
	return message, nil
}

// listen hears the messages of others until ctx or the member ends.
func (s *Shared) listen(ctx context.Context) {
	subscription := s.member.config.Client.Subscribe(ctx, s.channel)
	end := func() { _ = subscription.Close() }
	defer context.AfterFunc(ctx, end)()
	defer context.AfterFunc(s.member.ctx, end)()
	defer end()
	for message := range subscription.Channel(redis.WithChannelSize(1)) {
		if len(message.Payload) > idLen {
			s.hear(ctx, message.Payload[:idLen], message.Payload[idLen:])
		}
	}
}

// hear takes the message that the replica with the id has made.
func (s *Shared) hear(ctx context.Context, id, packed string) {
	if id == s.member.id {
		return
	}
	message, err := unpack(packed)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted != ctx || s.maker && s.member.id < id {
		return // the other stops when it hears this replica's
	}
	s.maker, s.since, s.heard = false, time.Now(), message
	close(s.arrival)
	s.arrival = make(chan struct{})
}

func pack(message []byte) (string, error) {
	var packed bytes.Buffer
	w, err := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if err == nil {
		_, err = w.Write(message)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", fmt.Errorf("fleetcall: packing a shared message: %w", err)
	}
	return packed.String(), nil
}

func unpack(packed string) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader([]byte(packed)))
	if err != nil {
		return nil, fmt.Errorf("fleetcall: unpacking a shared message: %w", err)
	}
	message, err := io.ReadAll(io.LimitReader(r, maxShared+1))
	if err != nil {
		return nil, fmt.Errorf("fleetcall: unpacking a shared message: %w", err)
	}
	if len(message) > maxShared {
		return nil, errTooLarge
	}
	return message, nil
}
