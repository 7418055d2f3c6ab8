package report_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/report"
)

// write writes a report to a path as the program does.
func write(t *testing.T, path string, r *report.Report) error {
	t.Helper()
	f, err := report.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return f.Write(r)
}

// expectFile fails the test unless the file contains the text, and its directory has
// this many entries.
func expectFile(t *testing.T, path, part string, entries int) {
	t.Helper()
	content, err := os.ReadFile(path)
	files, _ := os.ReadDir(filepath.Dir(path))
	if err != nil || !strings.Contains(string(content), part) || len(files) != entries {
		t.Errorf("%v, %d files, %.100s", err, len(files), content)
	}
}

func TestAFileIsReplacedOnlyByAWholeReport(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.html")
	if err := os.WriteFile(path, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := report.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	expectFile(t, path, "before", 1)
	never := sample("x")
	never.Begun = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) // cannot be encoded as JSON
	if err := write(t, path, never); err == nil {
		t.Error("a report that cannot be written was")
	}
	expectFile(t, path, "before", 1)
	if err := write(t, path, sample("after")); err != nil {
		t.Fatal(err)
	}
	expectFile(t, path, "<title>after</title>", 1)
	for _, bad := range []string{dir, filepath.Join(dir, "no", "out.html"), filepath.Join(path, "out.html"), path + "/"} {
		if f, err := report.Create(bad); err == nil {
			f.Close()
			t.Errorf("a report can be made at %s", bad)
		}
	}
	expectFile(t, path, "<title>after</title>", 1)
}

func TestAFileKeepsItsModeAndANewFileFollowsTheUmask(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.html")
	expect := func(want os.FileMode) {
		t.Helper()
		if err := write(t, path, sample("x")); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%v, mode %v, want %v", err, info.Mode(), want)
		}
	}
	before := syscall.Umask(0o027)
	defer syscall.Umask(before)
	expect(0o640)
	for _, mode := range []os.FileMode{0o600, 0o666, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		expect(mode)
	}
}

func TestALinkStaysALinkAndItsTargetIsWritten(t *testing.T) {
	for name, links := range map[string][][2]string{ // pairs of a link and what it leads to
		"absolute":                   {{"links/latest.html", "DIR/reports/monday.html"}},
		"relative":                   {{"links/latest.html", "../reports/monday.html"}},
		"a link to a link":           {{"links/latest.html", "week.html"}, {"links/week.html", "../reports/monday.html"}},
		"up from a directory's link": {{"elsewhere", "links/deeper"}, {"links/latest.html", "../elsewhere/../../reports/monday.html"}},
		"the directory is the link":  {{"links/latest.html", "../elsewhere/monday.html"}, {"elsewhere", "reports"}},
	} {
		for _, there := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, the file is there: %v", name, there), func(t *testing.T) {
				dir := t.TempDir()
				for _, sub := range []string{"links/deeper", "reports"} {
					if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				for _, link := range links {
					if err := os.Symlink(strings.Replace(link[1], "DIR", dir, 1), filepath.Join(dir, link[0])); err != nil {
						t.Fatal(err)
					}
				}
				file := filepath.Join(dir, "reports/monday.html")
				if there {
					if err := os.WriteFile(file, []byte("before"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				latest := filepath.Join(dir, "links/latest.html")
				if err := write(t, latest, sample("after")); err != nil {
					t.Fatal(err)
				}
				expectFile(t, file, "<title>after</title>", 1)
				if info, err := os.Lstat(latest); err != nil || info.Mode()&os.ModeSymlink == 0 {
					t.Errorf("the link is %v, %v", info.Mode(), err)
				}
			})
		}
	}
	loop := filepath.Join(t.TempDir(), "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	if f, err := report.Create(loop); err == nil {
		f.Close()
		t.Error("a report can be made at a link to itself")
	}
}

// The test uses pipes because a device behaves like a pipe here.
func TestAPipeIsWrittenToAndNotReplaced(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("pipe", link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, link} {
		read := make(chan string, 1)
		go func() {
			content, err := os.ReadFile(pipe)
			if err != nil {
				t.Error(err)
			}
			read <- string(content)
		}()
		if err := write(t, path, sample("after")); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(pipe)
		if err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Fatalf("%v, the pipe has become %v", err, info.Mode())
		}
		if got := <-read; !strings.Contains(got, "<title>after</title>") || !strings.HasSuffix(got, "</html>\n") {
			t.Errorf("read %.100s", got)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
			t.Errorf("%v, %v", err, files)
		}
	}
}
