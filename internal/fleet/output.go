package fleet

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// lineWriter lets several processes write to one writer without mixing their lines.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// named returns a writer whose lines start with name.
func (l *lineWriter) named(name string) io.Writer {
	return &namedWriter{lines: l, prefix: "[" + name + "] "}
}

type namedWriter struct {
	lines  *lineWriter
	prefix string

	mu   sync.Mutex
	rest []byte // the start of a line whose end has not been written yet
}

func (n *namedWriter) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rest = append(n.rest, p...)
	for {
		line, rest, ok := bytes.Cut(n.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		whole := append([]byte(n.prefix), line...)
		n.lines.mu.Lock()
		_, err := n.lines.w.Write(append(whole, '\n'))
		n.lines.mu.Unlock()
		n.rest = rest
		if err != nil {
			return len(p), err
		}
	}
}

const tailSize = 4 << 10

// tail passes on all that is written to it, and keeps the last 4 KiB for error
// messages.
type tail struct {
	w io.Writer

	mu   sync.Mutex
	kept []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	t.kept = append(t.kept, p...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	t.mu.Unlock()
	// The error is ignored, because a log that cannot be written must not stop the
	// process that logs.
	_, _ = t.w.Write(p)
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
