package coalescehttp

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// errReturned is of a handler that writes after its ServeHTTP has returned.
var errReturned = errors.New("fleetcall: Write called after the handler has returned")

// Unwrap is for http.ResponseController, which finds in the client's writer what recorder
// does not have.
func (w *recorder) Unwrap() http.ResponseWriter { return w.client }

// WriteString makes recorder an io.StringWriter.
func (w *recorder) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

// ReadFrom makes recorder an io.ReaderFrom: net/http sends a file without copying it.
func (w *recorder) ReadFrom(from io.Reader) (n int64, err error) {
	if w.over.Load() {
		return 0, errReturned
	}
	if w.status == 0 {
		w.commit(http.StatusOK)
	}
	if w.mode == keeping {
		var ended bool
		if n, ended, err = w.keepFrom(from); ended || err != nil {
			return n, err
		}
	}
	more, err := io.Copy(w.client, from)
	return n + more, err
}

// keepFrom writes what it reads until the answer is the client's alone.
func (w *recorder) keepFrom(from io.Reader) (n int64, ended bool, err error) {
	piece := make([]byte, 32<<10)
	for w.mode == keeping {
		read, failed := from.Read(piece)
		if read > 0 {
			written, err := w.Write(piece[:read])
			n += int64(written)
			if err != nil {
				return n, true, err
			}
		}
		switch {
		case failed == io.EOF:
			return n, true, nil
		case failed != nil:
			return n, true, failed
		}
	}
	return n, false, nil
}

// Flush makes recorder an http.Flusher.
func (w *recorder) Flush() { _ = w.FlushError() }

// FlushError is what http.ResponseController looks for. A handler that flushes sends its
// answer bit by bit, to its own client.
func (w *recorder) FlushError() error {
	if w.over.Load() {
		return errReturned
	}
	if w.status == 0 {
		w.commit(http.StatusOK)
	}
	if w.mode == keeping {
		w.leaveFlight(ReasonStreams)
		w.goDirect()
	}
	return http.NewResponseController(w.client).Flush()
}

// Hijack makes recorder an http.Hijacker.
func (w *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if w.over.Load() {
		return nil, nil, errReturned
	}
	if w.mode == keeping {
		w.leaveFlight(ReasonHijacked)
		w.goDirect()
	}
	conn, buffered, err := http.NewResponseController(w.client).Hijack()
	if err == nil && w.status == 0 {
		w.hijacked()
	}
	return conn, buffered, err
}

// hijacked ends the flight of a handler that makes its answer itself.
func (w *recorder) hijacked() {
	w.status, w.mode, w.committed = http.StatusSwitchingProtocols, direct, w.Header()
	d := w.decision
	if w.offer != nil {
		w.answer = &Answer{Replica: w.replica}
		w.leaveFlight(ReasonHijacked)
		d = w.alone()
	}
	w.decide(d)
}

// SetReadDeadline is what http.ResponseController looks for. It is the leader's client's
// connection that has the deadline, as for a handler without the Middleware.
func (w *recorder) SetReadDeadline(deadline time.Time) error {
	return http.NewResponseController(w.client).SetReadDeadline(deadline)
}

// SetWriteDeadline is what http.ResponseController looks for.
func (w *recorder) SetWriteDeadline(deadline time.Time) error {
	return http.NewResponseController(w.client).SetWriteDeadline(deadline)
}

// EnableFullDuplex is what http.ResponseController looks for.
func (w *recorder) EnableFullDuplex() error {
	return http.NewResponseController(w.client).EnableFullDuplex()
}
