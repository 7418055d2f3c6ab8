package heat

import (
	"testing"
	"time"
)

// newKeys returns a Keys in simulated time, and the keys that it finds hot.
func newKeys() (*Keys, *[]ID) {
	var turned []ID
	k := New(func(id ID) { turned = append(turned, id) })
	k.begun = begun
	return k, &turned
}

func TestACrowdMakesAKeyHotThoughItIsCountedBeforeItsFlightBegins(t *testing.T) {
	k, turned := newKeys()
	for range 3 {
		k.Waits(7, begun)
	}
	if k.Begins(7, begun) {
		t.Error("the first flight of a key asks")
	}
	if len(*turned) != 1 || k.Hot(begun) != 1 {
		t.Errorf("the others are told of %v", *turned)
	}
	k.Ran(7, time.Second)
	if !k.Begins(7, begun.Add(time.Second)) {
		t.Error("the next flight does not ask")
	}
}

func TestAFunctionThatIsOverBeforeRedisAnswersIsNotAskedFor(t *testing.T) {
	k, _ := newKeys()
	k.Trip(time.Millisecond)
	k.Trip(time.Second) // something was slow, once
	k.Told(7, begun)
	k.Begins(7, begun)
	k.Ran(7, 100*time.Microsecond)
	if k.Hot(begun) != 1 {
		t.Error("it was judged when it was last called")
	}
	if k.Begins(7, begun); k.Hot(begun) != 0 {
		t.Error("it is asked for")
	}
	for range 100 {
		k.Ran(7, 20*time.Millisecond)
	}
	if !k.Begins(7, begun) {
		t.Error("it is not asked for, though it takes longer now")
	}
}

func TestAKeyThatWasSharedIsAskedForUntilFiveFlightsWereNot(t *testing.T) {
	k, turned := newKeys()
	k.Asked(7, true, begun)
	for i := range grant {
		if !k.Begins(7, begun) {
			t.Errorf("flight %d does not ask", i)
		}
		k.Asked(7, false, begun)
		k.Ran(7, time.Millisecond)
	}
	if k.Begins(7, begun) {
		t.Error("it is asked for still")
	}
	if len(*turned) != 1 {
		t.Errorf("told %v", *turned)
	}
}

func TestWhoWasToldDoesNotTell(t *testing.T) {
	k, turned := newKeys()
	k.Told(7, begun)
	if len(*turned) != 0 || !k.Begins(7, begun) {
		t.Errorf("told %v", *turned)
	}
}

func TestTheTableForgetsTheKeysWithTheFewestCalls(t *testing.T) {
	k, _ := newKeys()
	k.Told(1, begun)
	const others = sets * ways * 4
	for i := range others {
		k.Begins(ID(i+2), begun)
		k.Ran(ID(i+2), time.Millisecond)
	}
	if !k.Begins(1, begun) {
		t.Error("a hot key was forgotten for keys that came once")
	}
}

func TestKeysThatAreCalledNoMoreGiveTheirPlacesToOthers(t *testing.T) {
	ofOneSet := func(n int) ID { return ID(1 + n*sets) }
	for what, fill := range map[string]func(k *Keys, id ID){
		"told by another replica": func(k *Keys, id ID) { k.Told(id, begun) },
		"shared":                  func(k *Keys, id ID) { k.Asked(id, true, begun) },
		"asked for all the same":  func(k *Keys, id ID) { k.Begins(id, begun); k.Asks(id) },
	} {
		k, _ := newKeys()
		for i := range ways {
			fill(k, ofOneSet(i))
		}
		now := begun.Add(time.Hour)
		for i := range ways {
			k.Begins(ofOneSet(ways+i), now)
			k.Ran(ofOneSet(ways+i), time.Millisecond)
		}
		for i := range ways {
			lock, e := k.find(ofOneSet(ways + i))
			if lock.Unlock(); e == nil {
				t.Errorf("%s: key %d of an hour later is not remembered", what, i)
			}
		}
	}
}

func TestIDsTellGroupsAndKeysApart(t *testing.T) {
	ids := map[ID]string{}
	for _, name := range [][2]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"a", "c"}, {"b", "a"}} {
		id := IDOf(name[0], name[1])
		if other := ids[id]; other != "" {
			t.Errorf("%q and %q have one id", name, other)
		}
		ids[id] = name[0] + "/" + name[1]
	}
	if id := IDOf("products", "17"); id != IDOf("products", "17") || id == 0 {
		t.Error(id)
	}
}
