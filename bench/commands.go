package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// monitor reads MONITOR of a Redis: what its clients send, without what
// scripts call inside the server.
type monitor struct {
	addr string
	conn net.Conn
	done sync.WaitGroup

	mu       sync.Mutex
	commands [][]string
}

// endOfMonitor is an ECHO that marks the end of what is to be read.
const endOfMonitor = "fleetcall-bench-end"

func startMonitor(addr string) *monitor {
	m := &monitor{addr: addr, conn: value(net.Dial("tcp", addr))}
	_, err := m.conn.Write([]byte("MONITOR\r\n"))
	must(err)
	in := bufio.NewReaderSize(m.conn, 1<<20)
	_, err = in.ReadString('\n') // +OK
	must(err)
	m.done.Go(func() {
		for {
			text, err := in.ReadString('\n')
			if err != nil || strings.Contains(text, endOfMonitor) {
				return
			}
			if strings.Contains(text, " lua]") {
				continue
			}
			m.mu.Lock()
			m.commands = append(m.commands, words(text))
			m.mu.Unlock()
		}
	})
	return m
}

// stop returns every command since start, except those that are a connection's
// and not a flight's.
func (m *monitor) stop() [][]string {
	client := newObserver(m.addr)
	defer func() { _ = client.Close() }()
	must(client.Echo(background(), endOfMonitor).Err())
	m.done.Wait()
	_ = m.conn.Close()
	var commands [][]string
	for _, c := range m.commands {
		if !ofConnection(c) {
			commands = append(commands, c)
		}
	}
	return commands
}

func ofConnection(command []string) bool {
	switch strings.ToLower(command[0]) {
	case "ping", "hello", "echo":
		return true
	case "client":
		// But CLIENT CACHING goes with each read of a client-side cache.
		return !strings.EqualFold(command[1], "caching")
	}
	return false
}

// words returns the quoted words of one line of MONITOR.
func words(text string) []string {
	var list []string
	for rest := text; ; {
		start := strings.IndexByte(rest, '"')
		if start < 0 {
			break
		}
		quoted, err := strconv.QuotedPrefix(rest[start:])
		must(err)
		word, err := strconv.Unquote(quoted)
		must(err)
		list = append(list, word)
		rest = rest[start+len(quoted):]
	}
	if len(list) == 0 {
		list = []string{""}
	}
	return list
}

// settle is how long a flight's last commands may take to arrive.
const settle = 30 * time.Millisecond

// countCommands returns how many commands a flight costs, and which the last one
// sent. It is the median of several flights: on a busy machine, a caller may be so
// late that it starts a flight of its own.
func countCommands(addr string, flights int, fly func()) (perFlight float64, names map[string]int) {
	var counts []float64
	for range flights {
		m := startMonitor(addr)
		fly()
		time.Sleep(settle)
		commands := m.stop()
		names = map[string]int{}
		for _, c := range commands {
			names[strings.ToLower(c[0])]++
		}
		counts = append(counts, float64(len(commands)))
	}
	return median(counts), names
}

// steps are the two scripts that a leader sends, as they were seen on the wire,
// for keys and flights of one's own.
type steps struct{ join, finish []any }

// recordSteps watches one flight and returns n flights' steps like its own.
func recordSteps(addr string, fly func(key string), n int) []steps {
	const key = "recorded-key"
	fly("warm-up") // loads the scripts
	time.Sleep(settle)
	m := startMonitor(addr)
	fly(key)
	time.Sleep(settle)
	commands := m.stop()
	if len(commands) != 2 {
		must(fmt.Errorf("a lone flight sent %d commands, not a join and a finish: %q", len(commands), commands))
	}
	// A script's command is: EVALSHA, SHA, number of keys, keys, arguments.
	keys := value(strconv.Atoi(commands[0][2]))
	last := commands[0][3+keys-1] // its last key is the mark that the flight is over
	_, flight, _ := strings.Cut(last, ":over:")
	all := make([]steps, n)
	for i := range all {
		replace := strings.NewReplacer(key, fmt.Sprintf("bare-%d", i), flight, fmt.Sprintf("%022d", i))
		for part, command := range commands {
			var args []any
			for _, word := range command {
				args = append(args, replace.Replace(word))
			}
			if part == 0 {
				all[i].join = args
			} else {
				all[i].finish = args
			}
		}
	}
	return all
}
