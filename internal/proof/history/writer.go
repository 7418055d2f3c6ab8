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

// extension is of a process' file in the history's directory.
const extension = ".jsonl"

// Writer appends the records of one process to its file. Its methods may be
// called concurrently.
type Writer struct {
	process string

	mu   sync.Mutex
	file *os.File
	last int64 // At of the last record
}

// Open returns a Writer of the process' file in the directory dir, which must
// exist. The name must not have been used there before.
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

// Write stamps the record with the process and the time, and appends it. When
// Write has returned, the record outlives the process, however that ends. It
// returns the record's time.
func (w *Writer) Write(r Record) (at int64, err error) {
	r.Process = w.process
	w.mu.Lock()
	defer w.mu.Unlock()
	// Under the lock: the file is in the order of time, and no two of its
	// records have the same.
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

// Close closes the file. Later writes fail.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.file.Close()
}

// Now is the time as in a record: CLOCK_MONOTONIC of this machine.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // the clock is there since Linux 2.6
	}
	return ts.Nano()
}

// At is t, which this process took from its clock, as in a record. It is never
// later than t.
func At(t time.Time) int64 {
	now := Now() // before Since: a pause between the two makes it earlier
	return now - int64(time.Since(t))
}
