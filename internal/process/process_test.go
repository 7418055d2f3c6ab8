package process_test

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/process"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("PROCESS_TEST_PARENT") != "" {
		p, err := process.Start(process.Spec{Path: "/bin/sleep", Args: []string{"60"}})
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(strconv.Itoa(p.Pid()) + "\n")
		select {}
	}
	goleak.VerifyTestMain(m)
}

func TestOutputIsCompleteWhenDone(t *testing.T) {
	var out bytes.Buffer
	p, err := process.Start(process.Spec{Path: "/bin/sh", Args: []string{"-c", "echo one; echo two; exit 3"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if got := out.String(); got != "one\ntwo\n" {
		t.Errorf("output %q", got)
	}
	if ee, ok := p.Err().(*exec.ExitError); !ok || ee.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit status 3", p.Err())
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("signalling an ended process: %v", err)
	}
}

// lines has what a child wrote.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

func TestStopKillsAChildThatIgnoresTheSignal(t *testing.T) {
	trapped := make(lines)
	p, err := process.Start(process.Spec{Path: "/bin/sh", Args: []string{"-c", "trap '' TERM; echo trapped; while :; do sleep 1; done"}, Stdout: trapped})
	if err != nil {
		t.Fatal(err)
	}
	<-trapped
	if p.Stop(syscall.SIGTERM, 200*time.Millisecond) {
		t.Error("a child that ignores SIGTERM is said to have ended by itself")
	}
	if p.Running() {
		t.Error("it still runs")
	}
}

func TestChildDiesWithItsKilledParent(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("the kernel signals orphans only on Linux")
	}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "PROCESS_TEST_PARENT=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	for range 3000 {
		// A zombie whose parent is gone counts as dead.
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(child) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(20 * time.Millisecond) // no event announces it
	}
	t.Errorf("child %d still runs", child)
}

func TestAFrozenProcessStandsStillWhenFreezeReturns(t *testing.T) {
	if _, err := os.Stat("/proc/self/task"); err != nil {
		t.Skip("the state of a process is read from /proc")
	}
	p, err := process.Start(process.Spec{Path: "/bin/sh", Args: []string{"-c", "while :; do :; done"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	for range 20 {
		if err := p.Freeze(); err != nil {
			t.Fatal(err)
		}
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.Pid()) + "/stat")
		if err != nil || !strings.Contains(string(stat), ") T ") {
			t.Fatalf("after Freeze: %s, %v", stat, err)
		}
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}
