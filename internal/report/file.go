package report

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File is the file to which a report will be written. It is created before the load
// runs, so that an error is known before the work is done. Until Write has the whole
// report, whatever the path names stays unchanged. A file that is replaced keeps its
// mode.
//
// If the path is a symbolic link, it remains one and the file that it leads to is
// replaced. If it leads to a pipe, a device, or this program's own standard output or
// standard error, the report is written to it instead.
type File struct {
	out  *os.File
	path string // the path that out is renamed to; empty: out is written to directly
}

// Create opens the path if it must be written to directly. Otherwise it creates a file
// beside it.
func Create(path string) (*File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("fleetcall: making the report: %w", err)
	case info.IsDir():
		return nil, fmt.Errorf("fleetcall: --report %s is a directory", path)
	default:
		if out := standardOutput(info); out != nil {
			return &File{out: out}, nil
		}
		if !info.Mode().IsRegular() {
			out, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return nil, fmt.Errorf("fleetcall: making the report: %w", err)
			}
			return &File{out: out}, nil
		}
	}
	path = resolveLinks(path)
	dir, _ := filepath.Split(path)
	// os.CreateTemp would ignore the umask.
	out, err := os.OpenFile(dir+".fleetcall-report-"+rand.Text(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: making the report: %w", err)
	}
	f := &File{out: out, path: path}
	if info != nil {
		if err := out.Chmod(info.Mode().Perm()); err != nil {
			f.Close()
			return nil, fmt.Errorf("fleetcall: making the report: %w", err)
		}
	}
	return f, nil
}

// standardOutput returns os.Stdout or os.Stderr if that is the file which info
// describes. If such a file were opened once more, each writer would overwrite what the
// other has written.
func standardOutput(info fs.FileInfo) *os.File {
	for _, out := range []*os.File{os.Stdout, os.Stderr} {
		if same, err := out.Stat(); err == nil && os.SameFile(info, same) {
			return out
		}
	}
	return nil
}

// resolveLinks follows symbolic links until the path names something else, or nothing.
func resolveLinks(path string) string {
	for range 40 { // the limit of Linux
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			// filepath.Join would resolve "..", which is wrong if the directory before
			// it is a link too.
			dir, _ := filepath.Split(path)
			target = dir + target
		}
		path = target
	}
	return path
}

// Write writes the report to the path.
func (f *File) Write(r *Report) error {
	var whole bytes.Buffer
	if err := r.Write(&whole); err != nil {
		return err
	}
	if err := f.write(whole.Bytes()); err != nil {
		return fmt.Errorf("fleetcall: writing the report: %w", err)
	}
	return nil
}

func (f *File) write(text []byte) error {
	if _, err := f.out.Write(text); err != nil || f.path == "" {
		return err
	}
	if err := f.out.Close(); err != nil {
		return err
	}
	return os.Rename(f.out.Name(), f.path)
}

// Close removes the temporary file if Write has not renamed it.
func (f *File) Close() {
	if f.out == os.Stdout || f.out == os.Stderr {
		return
	}
	_ = f.out.Close()
	if f.path != "" {
		_ = os.Remove(f.out.Name())
	}
}
