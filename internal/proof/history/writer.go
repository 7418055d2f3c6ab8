package history

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// extension is the extension of the files in the history's directory.
const extension = ".jsonl"

// Writer appends the records of one process to its file. Its methods may be called
// concurrently.
type Writer struct {
	process string

	mu   sync.Mutex
	file *os.File
	last int64 // the time of the last record
}

// Open creates the process's file in the directory dir, which must exist. It fails if
// the name has been used in this directory before.
func Open(dir, process string) (*Writer, error) {
	if process == "" || strings.ContainsAny(process, "/\x00") {
		return nil, fmt.Errorf("history: Open: %q cannot be the name of a process", process)
	}
	file, err := os.OpenFile(filepath.Join(dir, process+extension), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	return &Writer{process: process, file: file}, nil
}

// Write adds the process and the time to the record, appends it, and returns the time.
// When Write has returned, the record survives any end of the process.
func (w *Writer) Write(r Record) (at int64, err error) {
	r.Process = w.process
	w.mu.Lock()
	defer w.mu.Unlock()
	// The time is taken under the lock, so that the file is sorted by time and no two
	// records have the same time.
	r.At = max(Now(), w.last+1)
	w.last = r.At
	line, err := json.Marshal(r)
	if err != nil {
		return 0, fmt.Errorf("history: %w", err)
	}
	if _, err := w.file.Write(append(line, '\n')); err != nil {
		return 0, fmt.Errorf("history: %w", err)
	}
	return r.At, nil
}

// Close closes the file. After that, Write fails.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}

// Now returns the current time in the form of a record's: CLOCK_MONOTONIC of this
// machine.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // every Linux since 2.6 has the clock
	}
	return ts.Nano()
}

// At converts t, which must be a reading of this process's clock, to the form of a
// record's time. The result is never later than t.
func At(t time.Time) int64 {
	now := Now() // read before Since, so that a pause between the two makes the result earlier
	return now - int64(time.Since(t))
}
