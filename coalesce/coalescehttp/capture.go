package coalescehttp

import (
	"context"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// capture is an answer's body as far as it is there. One goroutine reads it from the
// server and never waits for the leader's client, which reads it here as it grows. Past
// the limit, or when it takes too long, the body is handed over: the client reads the
// rest from the server itself, at its own speed.
type capture struct {
	source io.ReadCloser
	limit  int
	done   chan struct{} // closed when the goroutine reads no more
	grown  chan struct{} // has a value when there is more for the client

	mu     sync.Mutex
	data   []byte
	err    error // after data: io.EOF, or why the body was cut; nil: it was handed over
	handed bool  // it is to be handed over
	ended  bool  // the goroutine reads no more
	closed bool  // the client wants no more: the goroutine closes the source at its end
}

// firstRead is how much is read at once, at first, of a body of unknown length.
const firstRead = 4 << 10

// newCapture starts to read source. length is the body's, or -1.
func newCapture(source io.ReadCloser, length int64, limit int) *capture {
	size := firstRead
	if length >= 0 {
		size = int(min(length, int64(limit))) + 1 // one more, so that the last read finds the end
	}
	c := &capture{source: source, limit: limit, data: make([]byte, 0, min(size, 64<<10)), done: make(chan struct{}), grown: make(chan struct{}, 1)}
	if source == http.NoBody {
		c.fill()
	} else {
		go c.fill()
	}
	return c
}

// headStart is how long a caller waits for the end of the body when the header is there,
// before it begins to read. Most bodies come with the header. Then the caller is woken
// once, and knows its role.
const headStart = time.Millisecond

// isHere says whether the body's end has come, and waits a headStart for it.
func (c *capture) isHere(flight context.Context) bool {
	runtime.Gosched() // a body that came with the header is read without a wait, for which a timer would wake a thread
	select {
	case <-c.done:
		return true
	default:
	}
	timer := time.NewTimer(headStart)
	defer timer.Stop()
	select {
	case <-c.done:
		return true
	case <-timer.C:
	case <-flight.Done():
	}
	return false
}

func (c *capture) fill() {
	defer close(c.done)
	defer func() {
		if value := recover(); value != nil {
			c.lose(&coalesce.PanicError{Value: value, Stack: debug.Stack()})
		}
	}()
	free := c.data[:cap(c.data)]
	for {
		n, err := c.source.Read(free)
		more := false
		if free, more = c.add(n, err); !more {
			return
		}
	}
}

// add takes n bytes that were read behind data, and returns where the next are read to.
// Nobody else looks at what is behind data.
func (c *capture) add(n int, err error) (free []byte, more bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.grow()
	c.data = c.data[:len(c.data)+n]
	switch {
	case err != nil:
		c.err = err
	case len(c.data) > c.limit:
		c.handed = true
	}
	if c.err != nil || c.handed {
		c.ended = true
		if c.err != nil || c.closed {
			_ = c.source.Close()
		}
		return nil, false
	}
	if len(c.data) == cap(c.data) {
		larger := make([]byte, len(c.data), min(2*cap(c.data)+firstRead, c.limit+1))
		copy(larger, c.data)
		c.data = larger
	}
	return c.data[len(c.data):cap(c.data)], true
}

// lose ends a body whose source panics. On this goroutine, nobody could recover that.
func (c *capture) lose(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.grow()
	if c.err == nil {
		c.err = err
	}
	c.ended = true
}

func (c *capture) grow() {
	select {
	case c.grown <- struct{}{}:
	default: // the client has not yet taken note of what came before
	}
}

// handOver has the goroutine read no more than it reads now.
func (c *capture) handOver() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.handed = true
	}
}

// whole returns the body when all of it is here, why it was cut, or that it was handed
// over. The goroutine has ended.
func (c *capture) whole() (data []byte, handed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.err {
	case nil:
		return nil, true, nil
	case io.EOF:
		return c.data, false, nil
	}
	return nil, false, c.err
}

// isHandedOver says whether the client reads the rest itself.
func (c *capture) isHandedOver() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handed
}

// captured is the client's way through a capture.
type captured struct {
	*capture
	own  context.Context // ends when the client has left
	read int             // of data
}

// Read returns what is there, and waits only when there is nothing.
func (c *captured) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		c.mu.Lock()
		switch {
		case c.closed:
			c.mu.Unlock()
			return 0, http.ErrBodyReadAfterClose
		case c.read < len(c.data):
			n := copy(p, c.data[c.read:])
			c.read += n
			c.mu.Unlock()
			return n, nil
		case c.err != nil:
			err := c.err
			c.mu.Unlock()
			return 0, err
		case c.ended:
			c.data, c.read = nil, 0 // what is left may take hours
			c.mu.Unlock()
			return c.source.Read(p)
		}
		c.mu.Unlock()
		select {
		case <-c.grown:
		case <-c.own.Done():
			return 0, context.Cause(c.own) // as net/http says it
		}
	}
}

// Close says that the client wants no more. The source is closed by whoever reads it.
func (c *captured) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.ended && c.err == nil {
		return c.source.Close()
	}
	return nil
}
