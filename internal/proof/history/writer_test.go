package history_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/proof/history"
)

func TestReadReturnsWhatAllProcessesWroteByTime(t *testing.T) {
	dir := t.TempDir()
	const processes, goroutines, records = 3, 4, 200
	var wg sync.WaitGroup
	for p := range processes {
		w, err := history.Open(dir, fmt.Sprint("r", p))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = w.Close() }()
		for g := range goroutines {
			wg.Go(func() {
				for i := range records {
					if _, err := w.Write(history.Record{Kind: history.Called, Call: fmt.Sprintf("%d.%d", g, i)}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()

	got, err := history.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := processes * goroutines * records; len(got) != want {
		t.Fatalf("%d records, want %d", len(got), want)
	}
	seen := map[string]bool{}
	next := map[string]int{} // by process and goroutine
	for i, r := range got {
		if i > 0 && r.At < got[i-1].At {
			t.Fatalf("record %d is older than the one before", i)
		}
		id := r.Process + " " + r.Call
		if seen[id] {
			t.Fatalf("%s is there twice", id)
		}
		seen[id] = true
		goroutine, number, _ := strings.Cut(r.Call, ".")
		if by := r.Process + goroutine; number != strconv.Itoa(next[by]) {
			t.Fatalf("%s: record %s, want %d next", by, number, next[by])
		} else {
			next[by]++
		}
	}
}

func TestARecordIsReadAsItWasWritten(t *testing.T) {
	dir := t.TempDir()
	w, err := history.Open(dir, "driver")
	if err != nil {
		t.Fatal(err)
	}
	want := history.Record{
		Kind: history.FaultBegin, Key: "k\n\"é", Flight: "f", Call: "c", Execution: "e", Role: "leader", Outcome: history.Value,
		Error: "boom\nboom", Deadline: 7, Cause: "timeout", Takeover: true, State: "taken", Asked: 8, Fault: "pause", Target: "r1",
		Settings: &settings, Effects: &history.Effects{Stops: true, Delay: time.Second}, Took: time.Minute,
	}
	before := history.Now()
	at, err := w.Write(want)
	if err != nil {
		t.Fatal(err)
	}
	if after := history.Now(); at < before || at > after {
		t.Errorf("written at %d, which is not between %d and %d", at, before, after)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(want); err == nil {
		t.Error("a closed writer wrote")
	}
	want.At, want.Process = at, "driver"
	if got, err := history.Read(dir); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("read %+v, %v, want %+v", got, err, want)
	}
}

func TestOpenRefusesANameThatWasUsedOrIsNone(t *testing.T) {
	dir := t.TempDir()
	w, err := history.Open(dir, "r1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Close() }()
	for _, name := range []string{"r1.1", "", "../r1"} {
		if again, err := history.Open(dir, name); err == nil {
			_ = again.Close()
			t.Errorf("opened %q", name)
		}
	}
}

func TestReadLeavesOutATornLastLineAndRefusesOtherDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "r1.jsonl")
	whole := `{"at":5,"process":"r1","kind":"exit"}` + "\n"
	for _, test := range []struct {
		what, content string
		records       int // -1: Read returns an error
	}{
		{"nothing", "", 0},
		{"whole lines", whole + whole, 2},
		{"a torn last line", whole + whole[:20], 1},
		{"only a torn line", whole[:20], 0},
		{"a torn line in the middle", whole[:20] + "\n" + whole, -1},
	} {
		if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := history.Read(dir)
		if (err != nil) != (test.records < 0) || err == nil && len(got) != test.records {
			t.Errorf("%s: %d records, %v", test.what, len(got), err)
		}
	}
	if _, err := history.Read(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("read a directory that is not there")
	}
}

func TestAtConvertsAReadingOfTheClock(t *testing.T) {
	before := history.Now()
	now := time.Now()
	after := history.Now()
	if at := history.At(now); at > after || before-at > int64(time.Minute) {
		t.Errorf("At is %d, taken between %d and %d", at, before, after)
	}
	if d := history.At(now.Add(time.Hour)) - history.At(now); d < int64(59*time.Minute) || d > int64(61*time.Minute) {
		t.Errorf("an hour later is %v later", time.Duration(d))
	}
}

// writeUntilKilled is the variable that makes a process of this test write into a
// directory.
const writeUntilKilled = "HISTORY_TEST_WRITE_UNTIL_KILLED"

// writeForever writes records from several goroutines. After each one, it prints the
// record's name.
func writeForever(dir string) {
	w, err := history.Open(dir, "r1")
	if err != nil {
		panic(err)
	}
	for g := range 4 {
		go func() {
			for i := 0; ; i++ {
				call := fmt.Sprintf("%d.%d", g, i)
				if _, err := w.Write(history.Record{Kind: history.Called, Key: strings.Repeat("k", 300), Call: call}); err != nil {
					panic(err)
				}
				if _, err := os.Stdout.WriteString(call + "\n"); err != nil {
					panic(err)
				}
			}
		}()
	}
	select {}
}

func TestAProcessThatIsKilledLosesNoRecordItHadWritten(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	child := exec.Command(program)
	child.Env = append(os.Environ(), writeUntilKilled+"="+dir)
	child.Stderr = os.Stderr
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var written []string
	out := bufio.NewReader(stdout)
	for {
		line, err := out.ReadString('\n')
		if err == io.EOF {
			break // the process was killed; an incomplete line does not count
		}
		if err != nil {
			t.Fatal(err)
		}
		written = append(written, strings.TrimSpace(line))
		if len(written) == 2000 {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the process was not killed")
	}

	records, err := history.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, r.Call)
	}
	slices.Sort(got)
	for _, call := range written {
		if _, found := slices.BinarySearch(got, call); !found {
			t.Fatalf("record %s is lost", call)
		}
	}
}
