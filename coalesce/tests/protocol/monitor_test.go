package protocol_test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// monitor begins to read what Redis is sent. What it returns gives the commands of
// clients' scripts, and those that the scripts called, until then.
func (s *stage) monitor() (stop func() string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.server.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	read := func() string {
		line, err := lines.ReadString('\n')
		if err != nil {
			s.t.Fatal(err)
		}
		return strings.TrimRight(line, "\r\n")
	}
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil || read() != "+OK" {
		s.t.Fatalf("MONITOR is refused: %v", err)
	}
	return func() string {
		defer conn.Close()
		const end = "end of the transcript"
		s.do("ECHO", end)
		var all strings.Builder
		var declared []string
		for {
			client, command := s.monitored(read())
			switch {
			case strings.EqualFold(command[0], "echo") && command[1] == end:
				return all.String()
			case client == "lua":
				all.WriteString("    " + s.called(command) + "\n")
				s.demandDeclared(command, declared)
			case strings.EqualFold(command[0], "evalsha"):
				all.WriteString(s.evalsha(command))
				keys, _ := strconv.Atoi(command[2])
				declared = command[3 : 3+keys]
			default:
				all.WriteString("  " + s.called(command) + "\n")
			}
		}
	}
}

// demandDeclared fails the test when a script called a command with a key that is not among
// its KEYS: servers may refuse that, and a Redis Cluster could not send it to the key's node.
func (s *stage) demandDeclared(command, declared []string) {
	s.t.Helper()
	keys := command[1:]
	switch strings.ToLower(command[0]) {
	case "time", "publish", "spublish":
		return
	case "del", "exists", "unlink":
	default:
		keys = keys[:1]
	}
	for _, key := range keys {
		if !slices.Contains(declared, key) {
			s.t.Errorf("%q touches a key that is not declared: %q", command, key)
		}
	}
}

// monitored takes a line of MONITOR apart: +time [database client] "word" "word"…
func (s *stage) monitored(line string) (client string, command []string) {
	s.t.Helper()
	_, rest, found := strings.Cut(line, " [0 ")
	client, rest, found2 := strings.Cut(rest, "] ")
	if !found || !found2 {
		s.t.Fatalf("MONITOR says %q", line)
	}
	for rest != "" {
		word, err := strconv.QuotedPrefix(rest)
		if err != nil {
			s.t.Fatalf("MONITOR says %q: %v", line, err)
		}
		rest = strings.TrimPrefix(rest[len(word):], " ")
		word, err = strconv.Unquote(word)
		if err != nil {
			s.t.Fatal(err)
		}
		command = append(command, word)
	}
	return client, command
}

// called is a command that a script called. A lifetime that it read before is
// rounded.
func (s *stage) called(command []string) string {
	line := strings.ToUpper(command[0])
	for i, word := range command[1:] {
		before := strings.ToUpper(command[i])
		if ms, err := strconv.Atoi(word); err == nil && ms > 30_000 && (before == "PX" || i == 1 && strings.EqualFold(command[0], "PEXPIRE")) {
			word = strconv.FormatInt((time.Duration(ms) * time.Millisecond).Round(time.Minute).Milliseconds(), 10)
		}
		line += " " + s.word(word)
	}
	return line
}

func (s *stage) evalsha(command []string) string {
	step, known := s.scripts[command[1]]
	if !known {
		s.t.Fatalf("a script of another package: %q", command)
	}
	keys, err := strconv.Atoi(command[2])
	if err != nil {
		s.t.Fatal(err)
	}
	text := "  EVALSHA " + step + "\n"
	for i, word := range command[3:] {
		list := "KEYS"
		if i >= keys {
			list, i = "ARGV", i-keys
		}
		text += fmt.Sprintf("    %s[%d]  %s\n", list, i+1, s.word(word))
	}
	return text + "  which calls\n"
}

// word is one as redis-cli takes it.
func (s *stage) word(word string) string {
	word = s.stable(word)
	if quoted := strconv.Quote(word); word == "" || quoted != `"`+word+`"` || strings.Contains(word, " ") {
		return quoted
	}
	return word
}
