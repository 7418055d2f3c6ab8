package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig"
)

const pingEvery = 200 * time.Microsecond

// pinger is a process that sends one PING after the other. A goroutine of a process that
// moves megabytes would measure how long that keeps it waiting.
type pinger struct {
	child   *exec.Cmd
	ask     io.WriteCloser
	answers *bufio.Reader
}

// startPinger starts the process, with nice: where that is not allowed, it only warns.
func startPinger(addr string) *pinger {
	child := exec.Command("nice", "-n", "-20", value(os.Executable()), "-pings", addr)
	child.Stderr = os.Stderr
	p := &pinger{child: child, ask: value(child.StdinPipe()), answers: bufio.NewReader(value(child.StdoutPipe()))}
	must(child.Start())
	p.longest() // it has connected
	return p
}

// longest returns how long the longest PING took since the last time, with that which is
// under way.
func (p *pinger) longest() time.Duration {
	value(io.WriteString(p.ask, "\n"))
	line := value(p.answers.ReadString('\n'))
	return time.Duration(value(strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 64)))
}

func (p *pinger) close() {
	_ = p.ask.Close()
	must(p.child.Wait())
}

// ping is what the process does: it sends PINGs to addr, and answers each line of asked with
// the nanoseconds of the longest since the last one.
func ping(addr string, asked io.Reader, answers io.Writer) (err error) {
	defer rig.Recover(&err)
	conn := value(net.Dial("tcp", addr))
	defer func() { _ = conn.Close() }()
	lines := make(chan error)
	go func() {
		for scanner := bufio.NewScanner(asked); scanner.Scan(); {
			lines <- nil
		}
		lines <- io.EOF
	}()
	replies := bufio.NewReader(conn)
	for longest := time.Duration(0); ; {
		began := time.Now()
		value(io.WriteString(conn, "PING\r\n"))
		if reply := value(replies.ReadString('\n')); reply != "+PONG\r\n" {
			return errors.New("PING: " + reply)
		}
		longest = max(longest, time.Since(began))
		select {
		case err := <-lines:
			if err != nil {
				return nil
			}
			value(fmt.Fprintln(answers, longest.Nanoseconds()))
			longest = 0
		case <-time.After(pingEvery):
		}
	}
}
