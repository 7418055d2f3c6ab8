package distributed

import (
	"errors"
	"testing"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// begun returns forgets that have read the counter on a first connection.
func begun(at wire.Count) *forgets {
	f := new(forgets)
	f.read(f.connected(), at, nil)
	return f
}

func TestAForgetIsMissedWhenTheCounterHasGrownByMoreThanWasHeard(t *testing.T) {
	for name, c := range map[string]struct {
		at    wire.Count
		heard []wire.Count
		now   wire.Count
		want  bool
	}{
		"nothing was ever forgotten":             {},
		"nothing was forgotten":                  {at: wire.Count{Began: 7, N: 3}, now: wire.Count{Began: 7, N: 3}},
		"all was heard":                          {at: wire.Count{Began: 7, N: 3}, heard: []wire.Count{{Began: 7, N: 5}, {Began: 7, N: 4}}, now: wire.Count{Began: 7, N: 5}},
		"the first was heard":                    {heard: []wire.Count{{Began: 7, N: 1}}, now: wire.Count{Began: 7, N: 1}},
		"one was heard again, late":              {at: wire.Count{Began: 7, N: 3}, heard: []wire.Count{{Began: 7, N: 3}}, now: wire.Count{Began: 7, N: 3}},
		"one was not counted":                    {at: wire.Count{Began: 7, N: 3}, heard: []wire.Count{{}}, now: wire.Count{Began: 7, N: 3}},
		"one was missed":                         {at: wire.Count{Began: 7, N: 3}, heard: []wire.Count{{Began: 7, N: 5}}, now: wire.Count{Began: 7, N: 5}, want: true},
		"the first was missed":                   {now: wire.Count{Began: 7, N: 1}, want: true},
		"the counter is gone":                    {at: wire.Count{Began: 7, N: 3}, want: true},
		"the counter shrank":                     {at: wire.Count{Began: 7, N: 3}, now: wire.Count{Began: 7, N: 2}, want: true},
		"another counter is as far":              {at: wire.Count{Began: 7, N: 3}, now: wire.Count{Began: 8, N: 3}, want: true},
		"another counter is as far as the first": {heard: []wire.Count{{Began: 7, N: 1}}, now: wire.Count{Began: 8, N: 1}, want: true},
	} {
		f := begun(c.at)
		for _, key := range c.heard {
			f.heardOf(key)
		}
		if got := f.read(f.connected(), c.now, nil); got != c.want {
			t.Errorf("%s: missed: %v", name, got)
		}
		if f.read(f.connected(), c.now, nil) {
			t.Errorf("%s: it is missed once more", name)
		}
	}
}

func TestWhatIsHeardWhileTheCounterIsReadCountsOnce(t *testing.T) {
	f := begun(wire.Count{Began: 7, N: 3})
	connection := f.connected()
	for n := range int64(3) {
		f.heardOf(wire.Count{Began: 7, N: 4 + n})
	}
	if f.read(connection, wire.Count{Began: 7, N: 6}, nil) {
		t.Error("heard before the reply, it is missed")
	}
	connection = f.connected()
	f.heardOf(wire.Count{Began: 7, N: 7})
	if f.read(connection, wire.Count{Began: 7, N: 6}, nil) || f.read(f.connected(), wire.Count{Began: 7, N: 7}, nil) {
		t.Error("heard before the reply, and forgotten after it, it is missed")
	}
}

func TestACounterThatCannotBeReadMeansThatSomeMayBeMissed(t *testing.T) {
	at := wire.Count{Began: 7, N: 3}
	f := new(forgets)
	if f.read(f.connected(), wire.Count{}, errors.New("refused")) {
		t.Error("something is missed on the first connection")
	}
	if !f.read(f.connected(), at, nil) || f.read(f.connected(), at, nil) {
		t.Error("the first that is read tells nothing, the next one does")
	}
	if !f.read(f.connected(), wire.Count{}, errors.New("refused")) || !f.read(f.connected(), at, nil) || f.read(f.connected(), at, nil) {
		t.Error("one that is not read, and the next one, tell nothing")
	}
}

func TestTheLastConnectionDecides(t *testing.T) {
	f := begun(wire.Count{Began: 7, N: 3})
	first, second := f.connected(), f.connected()
	if f.read(first, wire.Count{Began: 7, N: 4}, nil) {
		t.Error("a connection that is gone decides")
	}
	if !f.superseded(first) || f.superseded(second) || !f.read(second, wire.Count{Began: 7, N: 4}, nil) {
		t.Error("the last one does not decide")
	}
}
