package protocol_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// The flights of every transcript. The id of the first is random: the transcript
// shows its name instead.
const (
	this    = "this-flight-is-22chars"
	another = "another-flight-22chars"
)

// The key that every transcript is about.
const prefix = "fleetcall:products:{p1}"

// The Fleet that leads this flight, and forgets keys.
const fleet = "fleet-id"

var space = protocol.NewSpace("fleetcall", "products", 0, fleet)

// stage is a Redis on which situations are played, each on an empty database.
type stage struct {
	t       *testing.T
	server  *redisrig.Server
	client  *redis.Client
	scripts map[string]string // names of the steps, by SHA
	source  func(step, source string) string

	names protocol.Names
	now   int64 // of Redis' clock, when the situation began, in µs
}

// newStage starts a Redis that has the scripts.
func newStage(t *testing.T) *stage {
	t.Helper()
	server := redisrig.Start(t)
	s := &stage{t: t, server: server, client: server.Client(), scripts: map[string]string{}}
	for _, c := range s.everyCommand() {
		s.do("SCRIPT", "LOAD", c.CmdWithSource(context.Background()).Args()[1])
		s.scripts[c.Cmd(context.Background()).Args()[1].(string)] = c.Step()
	}
	return s
}

// everyCommand returns one command of each step.
func (s *stage) everyCommand() []protocol.Command {
	names := protocol.NewNames(space, "p1")
	join := protocol.JoinRequest{Names: names, Settings: &settings}
	finish := protocol.FinishRequest{Names: names, Settings: &settings}
	all := recorder{join.Command(), finish.Command(), protocol.ForgetRequest{Names: names, Settings: &settings}.Command(), protocol.Probe("fleetcall", "", time.Second)}
	_, _ = protocol.Peek(context.Background(), &all, protocol.PeekRequest{Names: names, Settings: &settings})
	_ = protocol.Leave(context.Background(), &all, protocol.LeaveRequest{Names: names, Settings: &settings})
	_, _ = protocol.Renew(context.Background(), &all, protocol.RenewRequest{Names: names, Settings: &settings})
	_, _ = protocol.Abandon(context.Background(), &all, protocol.AbandonRequest{Names: names, Settings: &settings})
	return all
}

// recorder keeps the commands that it is given, and sends none.
type recorder []protocol.Command

func (r *recorder) Do(_ context.Context, c protocol.Command) (any, error) {
	*r = append(*r, c)
	return int64(0), nil
}

// Do makes stage a protocol.Doer.
func (s *stage) Do(ctx context.Context, c protocol.Command) (any, error) {
	cmd := c.Cmd(ctx)
	if s.source != nil && c.Scripted() {
		cmd = c.CmdWithSource(ctx)
		cmd.Args()[1] = s.source(c.Step(), cmd.Args()[1].(string))
	}
	_ = s.client.Process(ctx, cmd)
	return protocol.Reply(cmd)
}

// begin empties the database for a situation.
func (s *stage) begin() {
	s.t.Helper()
	s.do("FLUSHALL")
	s.names = protocol.NewNames(space, "p1")
	now, err := s.client.Time(context.Background()).Result()
	if err != nil {
		s.t.Fatal(err)
	}
	s.now = now.UnixMicro()
}

func (s *stage) do(args ...any) any {
	s.t.Helper()
	reply, err := s.client.Do(context.Background(), args...).Result()
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return reply
}

// real returns a text with the id of this flight where it has its name, and the time of
// a minute ago where it has <start>.
func (s *stage) real(text string) string {
	return strings.NewReplacer(this, s.names.Flight(), "<start>", strconv.FormatInt(s.at(-time.Minute), 10)).Replace(text)
}

// at is the time of Redis' clock so long after the situation began.
func (s *stage) at(d time.Duration) int64 { return s.now + d.Microseconds() }

// What a situation can begin with. Lifetimes are whole minutes, for which see
// stable.

// set stores a string at one of the key's names, such as "lease".
func (s *stage) set(name, value string, ttl time.Duration) {
	s.t.Helper()
	s.do("SET", s.real(prefix+":"+name), s.real(value))
	if ttl > 0 {
		s.do("PEXPIRE", s.real(prefix+":"+name), ttl.Milliseconds())
	}
}

// wrongType stores a list where the protocol has something else.
func (s *stage) wrongType(name string) {
	s.t.Helper()
	s.do("RPUSH", s.real(prefix+":"+name), "a list")
}

// lease is one that a flight took a minute ago, and that so many have joined.
func (s *stage) lease(flight string, joined int) { s.leaseFor(flight, joined, leaseTTL) }

// leaseFor is one that has so long to live; 0: for ever.
func (s *stage) leaseFor(flight string, joined int, ttl time.Duration) {
	s.t.Helper()
	replica := map[string]string{this: "replica-a", another: "replica-b"}[flight]
	s.set("lease", fmt.Sprintf("%d%s%04d 1 <start> %d - %s\n", min(joined, 1), flight, joined, leaseTTL.Milliseconds(), replica), ttl)
}

// counted is a flight that has no outcome yet, and whose lease is due so long after the
// situation begins.
func (s *stage) counted(flight string, due time.Duration) { s.attempt(flight, due, "") }

// forgotten is a flight that runs though its key was forgotten. joined is its mark and how
// many have joined it.
func (s *stage) forgotten(flight, joined string, due time.Duration) {
	s.attempt(flight, due, " "+joined)
}

func (s *stage) attempt(flight string, due time.Duration, more string) {
	s.t.Helper()
	key := s.real(prefix + ":attempts")
	s.do("HSET", key, s.real(flight), fmt.Sprint(s.at(due)/1000)+more)
	s.do("PEXPIRE", key, flightTimeout.Milliseconds())
}

// over is the mark of a flight that was given up, or has left.
func (s *stage) over(flight string) { s.set("over:"+flight, "-", handoffTTL) }

// died is a flight whose leader has died.
func (s *stage) died(flight string) { s.counted(flight, -time.Minute) }

// result stores the outcome of a flight.
func (s *stage) result(flight, outcome string) {
	s.t.Helper()
	s.set("result:"+flight, outcome, handoffTTL)
}

// latest stores fields of what MaxAge keeps, each after its name.
func (s *stage) latest(fields ...any) {
	s.t.Helper()
	key := prefix + ":latest"
	s.do(append([]any{"HSET", key}, fields...)...)
	s.do("PEXPIRE", key, maxAge.Milliseconds())
}

// kept is an outcome that MaxAge keeps, which another flight came to.
func (s *stage) kept(finished time.Duration) {
	s.t.Helper()
	s.latest("finished", s.at(finished), "outcome", "outcome of another", "trace", "")
}

// stable returns a text without what differs from run to run: the flight's id is
// replaced by its name, and a time of Redis' clock by how many minutes it is from the
// beginning. Situations differ by whole minutes, so that a slow machine is no
// difference.
func (s *stage) stable(text string) string {
	text = strings.ReplaceAll(text, s.names.Flight(), this)
	return clockTime.ReplaceAllStringFunc(text, func(number string) string {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(number) == len("1600000000000") {
			n *= 1000
		}
		switch d := (time.Duration(n-s.now) * time.Microsecond).Round(time.Minute) / time.Minute; {
		case d < 0:
			return fmt.Sprintf("<now-%dm>", -d)
		case d > 0:
			return fmt.Sprintf("<now+%dm>", d)
		}
		return "<now>"
	})
}

var clockTime = regexp.MustCompile(`\b1[6-9]\d{11}(\d{3})?\b`) // ms or µs, from 2020 to 2033

// lifetime is a TTL or an age, which may have gone on a bit.
func lifetime(d time.Duration) string {
	switch {
	case d > 1000*time.Hour:
		return "since 1970"
	case d < 30*time.Second:
		return d.Round(10 * time.Second).String()
	}
	return d.Round(time.Minute).String()
}

// keys lists what the database has.
func (s *stage) keys() string {
	s.t.Helper()
	var all []string
	for _, key := range s.do("KEYS", "*").([]any) {
		value := ""
		switch kind := s.do("TYPE", key); kind {
		case "string":
			value = fmt.Sprintf("string  %q", s.do("GET", key))
		case "hash":
			fields, err := s.client.HGetAll(context.Background(), key.(string)).Result()
			if err != nil {
				s.t.Fatal(err)
			}
			stable := map[string]string{}
			for field, text := range fields {
				stable[s.stable(field)] = text
			}
			value = "hash   "
			for _, field := range slices.Sorted(maps.Keys(stable)) {
				value += fmt.Sprintf(" %s=%q", field, stable[field])
			}
		default:
			value = fmt.Sprintf("%s    %v", kind, s.do("LRANGE", key, 0, -1))
		}
		ttl := "for ever"
		if ms := s.do("PTTL", key).(int64); ms >= 0 {
			ttl = "for " + lifetime(time.Duration(ms)*time.Millisecond)
		}
		all = append(all, s.stable(fmt.Sprintf("  %s\n    %s\n    %s\n", key, value, ttl)))
	}
	if len(all) == 0 {
		return "  none\n"
	}
	slices.Sort(all)
	return strings.Join(all, "")
}

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
