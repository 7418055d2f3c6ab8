// Package broadcast makes a message at a steady pace for as long as somebody
// watches, once for all who do, and hands it to each of them.
//
// Nothing runs while nobody watches. A watcher that does not keep up is dropped:
// neither the others nor the maker wait for it.
package broadcast

import (
	"context"
	"errors"
	"sync"
	"time"
)

var (
	// ErrFull is returned by Watch when there are as many watchers as may be.
	ErrFull = errors.New("fleetcall: too many watchers")
	// ErrClosed is returned by Watch after Close.
	ErrClosed = errors.New("fleetcall: the broadcast has ended")
)

// backlog is how many messages a watcher may be behind before it is dropped.
const backlog = 2

// Config says what to broadcast.
type Config struct {
	// Make makes a message. It must heed ctx, which ends when nobody watches
	// any more.
	Make func(ctx context.Context) []byte
	// Every is the time between the beginnings of two calls of Make, at least:
	// also between the last one for the watchers before and the first one for
	// those who come next.
	Every time.Duration
	// Most is how many may watch at once.
	Most int
}

// Broadcast is a source of messages. Its methods may be called concurrently.
type Broadcast struct {
	config Config
	makers sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	watchers map[*Watcher]struct{}
	stop     context.CancelFunc // stops the maker; nil: none runs
	begun    time.Time          // when Make was last called; zero: never
	last     []byte             // the newest message; nil: none is
}

// Watcher is one who watches. Close it after use.
type Watcher struct {
	broadcast *Broadcast
	messages  chan []byte
	ctx       context.Context
	cancel    context.CancelFunc
}

// New returns a Broadcast that nobody watches yet.
func New(config Config) *Broadcast {
	return &Broadcast{config: config, watchers: map[*Watcher]struct{}{}}
}

// Watch returns a new watcher. It gets the newest message at once, unless that
// is older than Config.Every, and each one from then on. The error is ErrFull or
// ErrClosed.
func (b *Broadcast) Watch() (*Watcher, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return nil, ErrClosed
	case len(b.watchers) >= b.config.Most:
		return nil, ErrFull
	}
	w := &Watcher{broadcast: b, messages: make(chan []byte, backlog)}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	b.watchers[w] = struct{}{}
	if b.last != nil && time.Since(b.begun) < b.config.Every {
		w.messages <- b.last
	}
	if b.stop == nil {
		var ctx context.Context
		ctx, b.stop = context.WithCancel(context.Background())
		b.makers.Go(func() { b.run(ctx) })
	}
	return w, nil
}

// Close ends every watcher at once, and returns when Make is not running.
func (b *Broadcast) Close() {
	b.mu.Lock()
	b.closed = true
	for w := range b.watchers {
		b.remove(w)
	}
	b.mu.Unlock()
	b.makers.Wait()
}

// remove ends a watcher, and the maker with the last of them; mu is held.
func (b *Broadcast) remove(w *Watcher) {
	if _, watching := b.watchers[w]; !watching {
		return
	}
	delete(b.watchers, w)
	w.cancel()
	if len(b.watchers) == 0 {
		b.stop()
		b.stop = nil
	}
}

func (b *Broadcast) run(ctx context.Context) {
	for b.pause(ctx) {
		message := b.config.Make(ctx)
		b.hand(ctx, message)
	}
}

// pause waits for the time of the next message. It returns false when ctx ends.
// It may have to wait again: the maker of watchers who have left may have been
// about to call Make.
func (b *Broadcast) pause(ctx context.Context) bool {
	for {
		b.mu.Lock()
		// stop is called under the lock too: a maker that nobody wants does not
		// get past this.
		if ctx.Err() != nil {
			b.mu.Unlock()
			return false
		}
		wait := time.Duration(0)
		if !b.begun.IsZero() {
			wait = time.Until(b.begun.Add(b.config.Every))
		}
		if wait <= 0 {
			b.begun = time.Now()
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

func (b *Broadcast) hand(ctx context.Context, message []byte) {
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

// Messages has the messages. They are shared, and must not be changed.
func (w *Watcher) Messages() <-chan []byte { return w.messages }

// Context ends when the watcher does: it was closed, was dropped because it did
// not keep up, or the broadcast was closed.
func (w *Watcher) Context() context.Context { return w.ctx }

// Close ends the watcher. Closing it again does nothing.
func (w *Watcher) Close() {
	w.broadcast.mu.Lock()
	defer w.broadcast.mu.Unlock()
	w.broadcast.remove(w)
}
