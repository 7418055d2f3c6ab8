// Package protocol_test plays every step of the protocol in every situation on a real
// Redis. testdata has a transcript of each: what the database had, the call, the
// commands that Redis saw, the reply, and what the database has then.
//
// After a change of a script, see what it changes:
//
//	go test ./coalesce/tests/protocol -update && git diff coalesce/tests/protocol/testdata
package protocol_test

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "write the transcripts of testdata anew")

// The settings of every transcript. The durations differ, and are whole minutes.
const (
	leaseTTL      = time.Minute
	handoffTTL    = 2 * time.Minute
	maxAge        = 3 * time.Minute
	flightTimeout = 5 * time.Minute
	maxTakeovers  = 2
)

var settings = protocol.SettingsOf("replica-a", leaseTTL, flightTimeout, maxTakeovers, handoffTTL, maxAge)

// situation is a step and what it finds.
type situation struct {
	name  string // step/situation: the transcript is testdata/<name>.txt
	says  string // what it is, in whole sentences
	given func(*stage)
	call  func(*stage) call
}

// call is a step with its arguments.
type call struct {
	request any
	send    func() (reply string)
}

func situations() (all []situation) {
	for _, some := range [][]situation{joins, deaths, keeps, peeks, renews, finishes, lateFinishes, abandons, leaves, forgets, unshared, pieces, probes, manies} {
		all = append(all, some...)
	}
	return all
}

func TestEveryStepDoesInEverySituationWhatItsTranscriptShows(t *testing.T) {
	s := newStage(t)
	written := map[string]bool{}
	for _, situation := range situations() {
		file := filepath.Join("testdata", situation.name+".txt")
		if written[file] {
			t.Errorf("two situations are called %s", situation.name)
		}
		written[file] = true
		t.Run(situation.name, func(t *testing.T) {
			s.t = t
			got := play(s, situation)
			if *update {
				if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; write it with -update", err)
			}
			if got != string(want) {
				t.Errorf("%s is different: write it with -update, and look at the diff. This is new:\n%s", file, firstDifference(string(want), got))
			}
		})
	}
	if t.Failed() {
		return
	}
	_ = filepath.WalkDir("testdata", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !written[path] {
			t.Errorf("%s is no situation's: remove it", path)
		}
		return err
	})
}

// play returns the transcript of a situation.
func play(s *stage, situation situation) string {
	s.begin()
	situation.given(s)
	var text strings.Builder
	step, _, _ := strings.Cut(situation.name, "/")
	fmt.Fprintf(&text, "%s: %s\n\nkeys before\n%s", step, situation.says, s.keys())
	c := situation.call(s)
	stop := s.monitor()
	reply := c.send()
	commands := stop()
	fmt.Fprintf(&text, "\ncall\n%s", s.stable(literal(c.request)))
	fmt.Fprintf(&text, "\nRedis saw\n%s", commands)
	fmt.Fprintf(&text, "\nreply\n  %s\n", s.stable(reply))
	fmt.Fprintf(&text, "\nkeys after\n%s", s.keys())
	return text.String()
}

// literal is a request as Go has it, without the fields that are zero, and without
// names and settings: they are the same in every transcript.
func literal(request any) string {
	v := reflect.ValueOf(request)
	if v.Kind() == reflect.String {
		return "  " + v.String() + "\n"
	}
	text := "  " + v.Type().Name() + "{\n"
	for i := range v.NumField() {
		field := v.Field(i)
		switch value := field.Interface().(type) {
		case protocol.Names, *protocol.Settings:
			continue
		case time.Duration:
			if value != 0 {
				text += fmt.Sprintf("    %s: %v\n", v.Type().Field(i).Name, value)
			}
		default:
			if !field.IsZero() {
				format := "    %s: %v\n"
				if kind := field.Kind(); kind == reflect.String || kind == reflect.Slice {
					format = "    %s: %q\n"
				}
				text += fmt.Sprintf(format, v.Type().Field(i).Name, value)
			}
		}
	}
	return text + "  }\n"
}

// firstDifference returns the lines around the first that is not the same.
func firstDifference(want, got string) string {
	wants, gots := strings.Split(want, "\n"), strings.Split(got, "\n")
	i := 0
	for i < len(wants) && i < len(gots) && wants[i] == gots[i] {
		i++
	}
	from := max(i-3, 0)
	return "- " + strings.Join(wants[from:min(i+4, len(wants))], "\n- ") + "\n+ " + strings.Join(gots[from:min(i+4, len(gots))], "\n+ ")
}

// The calls, by step.

func join(change func(*protocol.JoinRequest)) func(*stage) call {
	return func(s *stage) call {
		r := protocol.JoinRequest{Names: s.names, Settings: &settings}
		if change != nil {
			change(&r)
		}
		return call{r, func() string {
			return joinReply(s.Do(context.Background(), r.Command()))
		}}
	}
}

func joinReply(raw any, err error) string {
	reply, err := protocol.ParseJoin(raw, err)
	if err != nil {
		return "error: " + err.Error()
	}
	switch reply.Answer {
	case protocol.Leads:
		return fmt.Sprintf("Leads %+v", reply.Lead)
	case protocol.Follows:
		f := reply.Follow
		return fmt.Sprintf("Follows {Flight:%s TTL:%s Now:%d Trace:%s}", f.Flight, lifetime(f.TTL), f.Now, f.Trace)
	case protocol.TakesKept:
		return fmt.Sprintf("TakesKept {Outcome:%s Age:%s Trace:%s}", reply.Kept.Outcome, lifetime(reply.Kept.Age), reply.Kept.Trace)
	case protocol.RunsAlone:
		return fmt.Sprintf("RunsAlone {Why:%s}", reply.Why)
	case protocol.IsPoisoned:
		return fmt.Sprintf("IsPoisoned {Poisoned:%d}", reply.Poisoned)
	case protocol.IsOver:
		return "IsOver"
	}
	return fmt.Sprintf("%+v", reply)
}

// plainJoin asks for the lease, and nothing else.
func plainJoin(s *stage) call { return join(nil)(s) }

// peek asks for the flight of another.
func peek(s *stage) call {
	r := protocol.PeekRequest{Names: s.names, Settings: &settings, Flight: another}
	return call{r, func() string {
		reply, err := protocol.Peek(context.Background(), s, r)
		switch {
		case err != nil:
			return "error: " + err.Error()
		case reply.Done:
			return fmt.Sprintf("Done {Outcome:%s}", reply.Outcome)
		case reply.Running > 0:
			return fmt.Sprintf("Running {%s Forgotten:%v}", lifetime(reply.Running), reply.Forgotten)
		case reply.Over:
			return "over"
		}
		return "gone"
	}}
}

func renew(s *stage) call {
	r := protocol.RenewRequest{Names: s.names, Settings: &settings, Attempt: 1, Start: s.at(-time.Minute), Trace: "trace-of-this", Message: []byte("this lives"), Publish: "PUBLISH"}
	return call{r, func() string {
		reply, err := protocol.Renew(context.Background(), s, r)
		state := map[protocol.RenewState]string{protocol.Over: "Over", protocol.Held: "Held", protocol.Retaken: "Retaken", protocol.Lost: "Lost"}[reply.State]
		return fmt.Sprintf("%s {Now:%d Forgotten:%v}, error: %v", state, reply.Now, reply.Forgotten, err)
	}}
}

// leave tells that this flight waits no longer for another.
func leave(s *stage) call {
	r := protocol.LeaveRequest{Names: s.names, Settings: &settings, Flight: another}
	return call{r, func() string {
		return fmt.Sprintf("error: %v", protocol.Leave(context.Background(), s, r))
	}}
}

// finish is a small outcome that is sent at once, with what change makes of it.
func finish(change func(*stage, *protocol.FinishRequest)) func(*stage) call {
	return func(s *stage) call {
		r := protocol.FinishRequest{
			Names: s.names, Settings: &settings,
			Outcome: []byte("outcome of this"), Publish: "PUBLISH", Finished: uint64(s.at(0)),
		}
		if change != nil {
			change(s, &r)
		}
		return call{r, func() string {
			return finishReply(s.Do(context.Background(), r.Command()))
		}}
	}
}

func finishReply(reply any, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	return map[protocol.FinishReply]string{
		protocol.FinishLost: "FinishLost", protocol.FinishNothing: "FinishNothing", protocol.FinishHeld: "FinishHeld", protocol.FinishWanted: "FinishWanted", protocol.FinishShared: "FinishShared",
	}[protocol.ParseFinish(reply)]
}

func plainFinish(s *stage) call { return finish(nil)(s) }

// ask is a finish whose outcome is too large to go along.
func ask(s *stage) call {
	return finish(func(_ *stage, r *protocol.FinishRequest) { r.Ask = true })(s)
}

// store stores two pieces of this flight's outcome.
func store(maxAge time.Duration) func(*stage) call {
	return func(s *stage) call {
		return s.all(`Store("first", "second")`, protocol.Store(s.names, &settings, [][]byte{[]byte("first"), []byte("second")}, maxAge))
	}
}

// expire lets two pieces of another flight's outcome go.
func expire(s *stage) call {
	return s.all(`Expire("another", 2)`, protocol.Expire(s.names, &settings, another, 2))
}

// fetch reads two pieces of another flight's outcome.
func fetch(s *stage) call {
	buffers := [][]byte{make([]byte, 5), make([]byte, 6)}
	c := s.all(`Fetch("another", 5 bytes, 6 bytes)`, protocol.Fetch(s.names, another, buffers))
	send := c.send
	c.send = func() string { return fmt.Sprintf("%s: %q", send(), buffers) }
	return c
}

// all sends commands one after another.
func (s *stage) all(request string, commands []protocol.Command) call {
	return call{request, func() string {
		replies := make([]string, len(commands))
		for i, command := range commands {
			reply, err := s.Do(context.Background(), command)
			replies[i] = fmt.Sprintf("%v, error: %v", reply, err)
		}
		return strings.Join(replies, "; ")
	}}
}

func abandon(forced bool) func(*stage) call {
	return func(s *stage) call {
		r := protocol.AbandonRequest{Names: s.names, Settings: &settings, Message: []byte("abandoned"), Publish: "PUBLISH", Forced: forced}
		return call{r, func() string {
			abandoned, err := protocol.Abandon(context.Background(), s, r)
			return fmt.Sprintf("abandoned: %v, error: %v", abandoned, err)
		}}
	}
}

// forgetBy forgets, and publishes on the key's channel by that command.
func forgetBy(publish string) func(*stage) call {
	return func(s *stage) call {
		r := protocol.ForgetRequest{
			Names: s.names, Settings: &settings, Namespace: "fleetcall",
			Notice: []byte("forget p1"), Message: []byte("forgotten"), Publish: publish,
		}
		return call{r, func() string {
			reply, err := s.Do(context.Background(), r.Command())
			return fmt.Sprintf("%v, error: %v", reply, err)
		}}
	}
}

func forget(s *stage) call { return forgetBy("PUBLISH")(s) }

func probe(s *stage) call {
	return call{`Probe("fleetcall", "", 1m0s)`, func() string {
		reply, err := s.Do(context.Background(), protocol.Probe("fleetcall", "", time.Minute))
		return fmt.Sprintf("%v, error: %v", reply, err)
	}}
}
