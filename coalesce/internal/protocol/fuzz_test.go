package protocol

import (
	"context"
	"errors"
	"testing"
	"time"
)

// anyReply is a Doer whose server replies so, whatever it is asked.
type anyReply struct {
	reply any
	err   error
}

func (d anyReply) Do(context.Context, Command) (any, error) { return d.reply, d.err }

// FuzzScriptReply lets a server reply anything: another script may stand under the same
// SHA, and a proxy may answer by itself. A reply is what its words say, or ErrReply, and
// never a panic. What it brought is what the server sent.
func FuzzScriptReply(f *testing.F) {
	const flight = "foreign-flight-22chars"
	f.Add(uint8(0), "lead", "", int64(1))
	f.Add(uint8(2), "lead", "", int64(1))
	f.Add(uint8(1), "lead", "", int64(1))
	f.Add(uint8(0), "done", "outcome", int64(5))
	f.Add(uint8(0), "done", "outcome", int64(-5))
	f.Add(uint8(0), "follow", flight, int64(1))
	f.Add(uint8(10), "follow", flight, int64(1_700_000_000_000_000))
	f.Add(uint8(2), "poisoned", "", int64(3))
	f.Add(uint8(0), "alone", "too large", int64(1))
	f.Add(uint8(2), "running", "", int64(1))
	f.Add(uint8(2), "running", "", int64(-1))
	f.Add(uint8(2), "over", "", int64(1_700_000_000_000_000))
	f.Add(uint8(2), "held", "", int64(1_700_000_000_000_000))
	f.Add(uint8(2), "retaken", "", int64(1_700_000_000_000_000))
	f.Add(uint8(2), "lost", "", int64(1_700_000_000_000_000))
	f.Fuzz(func(t *testing.T, shape uint8, word, text string, number int64) {
		reply := scriptReply(shape, word, text, number)
		list, _ := reply.([]any)
		first := ""
		if len(list) > 0 {
			first, _ = list[0].(string)
		}
		brought := map[string]bool{"": true, text: true}
		settings := SettingsOf("replica", time.Second, time.Second, 1, time.Second, time.Second)
		names := NewNames(NewSpace("ns", "g", 0, fleet), "k")

		join, err := ParseJoin(reply, nil)
		answer, known := map[string]Answer{"lead": Leads, "follow": Follows, "done": TakesKept, "poisoned": IsPoisoned, "alone": RunsAlone, "over": IsOver}[first]
		if known != (err == nil) || err != nil && !errors.Is(err, ErrReply) || join.Answer != answer {
			t.Errorf("join: %#v is %+v, %v", reply, join, err)
		}
		if !brought[join.Follow.Flight] && join.Follow.Flight != word || !brought[join.Kept.Outcome] && join.Kept.Outcome != word || !brought[join.Why] && join.Why != word {
			t.Errorf("join: %#v brought %+v", reply, join)
		}

		peek, err := Peek(context.Background(), anyReply{reply: reply}, PeekRequest{Names: names, Settings: &settings, Flight: flight})
		known = first == "done" || first == "over" || first == "running" || first == "gone"
		if known != (err == nil) || err != nil && !errors.Is(err, ErrReply) || peek.Done != (first == "done") || (peek.Running > 0) != (first == "running") {
			t.Errorf("peek: %#v is %+v, %v", reply, peek, err)
		}
		if !brought[peek.Outcome] && peek.Outcome != word {
			t.Errorf("peek: %#v brought %+v", reply, peek)
		}

		fuzzRenewAndLeave(t, names, &settings, reply, first)
		one := reply == int64(1)
		abandoned, err := Abandon(context.Background(), anyReply{reply: reply}, AbandonRequest{Names: names, Settings: &settings})
		if abandoned != one || err != nil {
			t.Errorf("abandon: %#v is %v, %v", reply, abandoned, err)
		}
		if finished := ParseFinish(reply); (finished == FinishHeld) != one {
			t.Errorf("finish: %#v is %v", reply, finished)
		}
	})
}

// fuzzRenewAndLeave lets a server reply so, and begin the reply with a word.
func fuzzRenewAndLeave(t *testing.T, names Names, settings *Settings, reply any, first string) {
	t.Helper()
	renewal, err := Renew(context.Background(), anyReply{reply: reply}, RenewRequest{Names: names, Settings: settings})
	state, known := map[string]RenewState{"held": Held, "retaken": Retaken, "lost": Lost, "over": Over}[first]
	if known != (err == nil) || err != nil && !errors.Is(err, ErrReply) || renewal.State != state {
		t.Errorf("renew: %#v is %+v, %v", reply, renewal, err)
	}
	if err := Leave(context.Background(), anyReply{reply: reply}, LeaveRequest{Names: names, Settings: settings, Flight: "foreign-flight-22chars"}); err != nil {
		t.Errorf("leave: %#v is %v", reply, err)
	}
}

// scriptReply returns a reply of one of the shapes that a script, a foreign
// script or a proxy may give it.
func scriptReply(shape uint8, word, text string, number int64) any {
	return []any{
		[]any{word, text, number},
		word,
		[]any{word, number},
		[]any{},
		nil,
		number,
		[]any{number, word},
		[]any{word, number, text},
		[]any{[]any{word}, text},
		[]any{word, nil, nil},
		[]any{word, text, int64(1), number, text},
	}[shape%11]
}

func TestAnErrorOfRedisIsEveryStepsError(t *testing.T) {
	cause := errors.New("connection reset")
	broken := anyReply{err: cause}
	settings := SettingsOf("replica", time.Second, time.Second, 1, time.Second, time.Second)
	names := NewNames(NewSpace("ns", "g", 0, fleet), "k")
	if reply, err := ParseJoin(nil, cause); err != cause || reply != (JoinReply{}) {
		t.Errorf("join: %+v, %v", reply, err)
	}
	if reply, err := Peek(context.Background(), broken, PeekRequest{Names: names, Settings: &settings}); err != cause || reply != (PeekReply{}) {
		t.Errorf("peek: %+v, %v", reply, err)
	}
	if reply, err := Renew(context.Background(), broken, RenewRequest{Names: names, Settings: &settings}); err != cause || reply != (RenewReply{}) {
		t.Errorf("renew: %+v, %v", reply, err)
	}
	if err := Leave(context.Background(), broken, LeaveRequest{Names: names, Settings: &settings}); err != cause {
		t.Errorf("leave: %v", err)
	}
	if abandoned, err := Abandon(context.Background(), broken, AbandonRequest{Names: names, Settings: &settings}); err != cause || abandoned {
		t.Errorf("abandon: %v, %v", abandoned, err)
	}
}
