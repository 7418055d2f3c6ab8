// Package broadcast produces messages at a steady pace and sends each of them to all
// watchers.
//
// It produces messages only while there are watchers. A watcher that is too slow is
// dropped, so that neither the other watchers nor the producer wait for it.
package broadcast

import (
	"context"
	"errors"
	"sync"
	"time"
)

var (
	// ErrFull is returned by Watch when there already are Config.MaxWatchers.
	ErrFull = errors.New("fleetcall: too many watchers")
	// ErrClosed is returned by Watch after Close.
	ErrClosed = errors.New("fleetcall: the broadcast has ended")
)

// backlog is the number of messages that a watcher may leave unread before it is
// dropped.
const backlog = 2

// Config configures a Broadcast.
type Config struct {
	// Message produces a message. It must return early when ctx ends, which happens
	// when the last watcher has left.
	Message func(ctx context.Context) []byte
	// Interval is the shortest time from the start of one call of Message to the start
	// of the next, even when all watchers leave in between and others come.
	Interval time.Duration
	// MaxWatchers is the largest number of watchers at one time.
	MaxWatchers int
}

// Broadcast sends messages to watchers. Its methods may be called concurrently.
type Broadcast struct {
	config     Config
	goroutines sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	watchers  map[*Watcher]struct{}
	stopRun   context.CancelFunc // stops the goroutine that produces messages; nil: there is none
	lastBegun time.Time          // when Message was called last; zero: never
	last      []byte             // the newest message; nil: none yet
}

// Watcher receives messages. Close it after use.
type Watcher struct {
	broadcast *Broadcast
	messages  chan []byte
	ctx       context.Context
	cancel    context.CancelFunc
}

// New returns a Broadcast without watchers.
func New(config Config) *Broadcast {
	return &Broadcast{config: config, watchers: map[*Watcher]struct{}{}}
}

// Watch returns a new watcher. It receives the newest message immediately, unless that
// is older than Config.Interval, and then every further message. The error is ErrFull
// or ErrClosed.
func (b *Broadcast) Watch() (*Watcher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, ErrClosed
	case len(b.watchers) >= b.config.MaxWatchers:
		return nil, ErrFull
	}
	w := &Watcher{broadcast: b, messages: make(chan []byte, backlog)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	b.watchers[w] = struct{}{}
	if b.last != nil && time.Since(b.lastBegun) < b.config.Interval {
		w.messages <- b.last
	}
	if b.stopRun == nil {
		var ctx context.Context
		ctx, b.stopRun = context.WithCancel(context.Background())
		b.goroutines.Go(func() { b.run(ctx) })
	}
	return w, nil
}

// Close ends all watchers, and returns when Message is no longer running.
func (b *Broadcast) Close() {
	b.mu.Lock()
	b.closed = true
	for w := range b.watchers {
		b.remove(w)
	}
	b.mu.Unlock()
	b.goroutines.Wait()
}

// remove ends a watcher. With the last watcher it also stops producing messages. The
// caller holds mu.
func (b *Broadcast) remove(w *Watcher) {
	if _, watching := b.watchers[w]; !watching {
		return
	}
	delete(b.watchers, w)
	w.cancel()
	if len(b.watchers) == 0 {
		b.stopRun()
		b.stopRun = nil
	}
}

func (b *Broadcast) run(ctx context.Context) {
	for b.waitForInterval(ctx) {
		message := b.config.Message(ctx)
		b.send(ctx, message)
	}
}

// waitForInterval waits until the next message is due, and returns false when ctx ends.
// It may have to wait more than once: a goroutine of earlier watchers may have called
// Message in the meantime.
func (b *Broadcast) waitForInterval(ctx context.Context) bool {
	for {
		b.mu.Lock()
		// ctx is cancelled under the lock too. So a goroutine whose watchers have all
		// left never passes this point.
		if ctx.Err() != nil {
			b.mu.Unlock()
			return false
		}
		wait := time.Duration(0)
		if !b.lastBegun.IsZero() {
			wait = time.Until(b.lastBegun.Add(b.config.Interval))
		}
		if wait <= 0 {
			b.lastBegun = time.Now()
			b.mu.Unlock()
			return true
		}
		b.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

func (b *Broadcast) send(ctx context.Context, message []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	b.last = message
	for w := range b.watchers {
		select {
		case w.messages <- message:
		default:
			b.remove(w)
		}
	}
}

// Messages returns the channel of messages. Watchers share the messages and must not
// change them.
func (w *Watcher) Messages() <-chan []byte { return w.messages }

// Context ends when the watcher ends: when it was closed, when it was dropped because
// it was too slow, or when the Broadcast was closed.
func (w *Watcher) Context() context.Context { return w.ctx }

// Close ends the watcher. It may be called more than once.
func (w *Watcher) Close() {
	w.broadcast.mu.Lock()
	defer w.broadcast.mu.Unlock()
	w.broadcast.remove(w)
}
