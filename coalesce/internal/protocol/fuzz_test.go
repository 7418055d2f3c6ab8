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
	f.Add(uint8(2), "running", "", int64(1))
	f.Add(uint8(2), "running", "", int64(-1))
	f.Fuzz(func(t *testing.T, shape uint8, word, text string, number int64) {
		reply := scriptReply(shape, word, text, number)
		list, _ := reply.([]any)
		first := ""
		if len(list) > 0 {
			first, _ = list[0].(string)
		}
		brought := map[string]bool{"": true, text: true}
		settings := SettingsOf("replica", time.Second, time.Second, 1, time.Second, time.Second)
		names := NewNames("ns:g", "k")

		join, err := ParseJoin(reply, nil)
		answer, known := map[string]Answer{"lead": Leads, "follow": Follows, "done": TakesKept, "poisoned": IsPoisoned}[first]
		if known != (err == nil) || err != nil && !errors.Is(err, ErrReply) || join.Answer != answer {
			t.Errorf("join: %#v is %+v, %v", reply, join, err)
		}
		if !brought[join.Follow.Flight] && join.Follow.Flight != word || !brought[join.Kept.Outcome] && join.Kept.Outcome != word {
			t.Errorf("join: %#v brought %+v", reply, join)
		}

		peek, err := Peek(context.Background(), anyReply{reply: reply}, PeekRequest{Names: names, Flight: flight})
		known = first == "done" || first == "running" || first == "gone"
		if known != (err == nil) || err != nil && !errors.Is(err, ErrReply) || peek.Done != (first == "done") || (peek.Running > 0) != (first == "running") {
			t.Errorf("peek: %#v is %+v, %v", reply, peek, err)
		}
		if !brought[peek.Outcome] && peek.Outcome != word {
			t.Errorf("peek: %#v brought %+v", reply, peek)
		}

		one := reply == int64(1)
		if held, err := Renew(context.Background(), anyReply{reply: reply}, names, &settings); held != one || err != nil {
			t.Errorf("renew: %#v is %v, %v", reply, held, err)
		}
		abandoned, err := Abandon(context.Background(), anyReply{reply: reply}, AbandonRequest{Names: names, Settings: &settings})
		if abandoned != one || err != nil {
			t.Errorf("abandon: %#v is %v, %v", reply, abandoned, err)
		}
		if finished := ParseFinish(reply); (finished == FinishHeld) != one {
			t.Errorf("finish: %#v is %v", reply, finished)
		}
	})
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
	names := NewNames("ns:g", "k")
	if reply, err := ParseJoin(nil, cause); err != cause || reply != (JoinReply{}) {
		t.Errorf("join: %+v, %v", reply, err)
	}
	if reply, err := Peek(context.Background(), broken, PeekRequest{Names: names}); err != cause || reply != (PeekReply{}) {
		t.Errorf("peek: %+v, %v", reply, err)
	}
	if held, err := Renew(context.Background(), broken, names, &settings); err != cause || held {
		t.Errorf("renew: %v, %v", held, err)
	}
	if abandoned, err := Abandon(context.Background(), broken, AbandonRequest{Names: names, Settings: &settings}); err != cause || abandoned {
		t.Errorf("abandon: %v, %v", abandoned, err)
	}
}
