package protocol_test

import (
	"context"
	"fmt"
	"maps"
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
	ofOther = "this-of-p2-is-22-chars" // the second key's
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
	other protocol.Names // of a flight of another key, p2
	now   int64          // of Redis' clock, when the situation began, in µs
}

// newStage starts a Redis that has the scripts.
func newStage(t *testing.T) *stage {
	t.Helper()
	server := redisrig.Start(t)
	s := &stage{t: t, server: server, client: server.Client(), scripts: map[string]string{}}
	for _, c := range s.everyCommand() {
		s.do("SCRIPT", "LOAD", c.CmdWithSource(context.Background()).Args()[1])
		s.scripts[c.Cmd(context.Background()).Args()[1].(string)] = c.Step()
		s.loadMany(c)
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
	s.names, s.other = protocol.NewNames(space, "p1"), protocol.NewNames(space, "p2")
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
	return strings.NewReplacer(this, s.names.Flight(), ofOther, s.other.Flight(), "<start>", strconv.FormatInt(s.at(-time.Minute), 10)).Replace(text)
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
	text = strings.NewReplacer(s.names.Flight(), this, s.other.Flight(), ofOther, "called from Lua script", "called from script").Replace(text)
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
