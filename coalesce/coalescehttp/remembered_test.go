package coalescehttp

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestAKeyIsLeftAloneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		re := newRemembered(10)
		if reason := re.alone("k"); reason != "" {
			t.Errorf("before anything was known: %q", reason)
		}
		re.leaveAlone("k", ReasonPrivate, 30*time.Second)
		re.leaveAlone("provoked", ReasonStatus, time.Hour)
		re.leaveAlone("off", ReasonPrivate, 0)
		if re.alone("k") != ReasonPrivate || re.alone("provoked") != "" || re.alone("off") != "" || re.alone("other") != "" {
			t.Errorf("%q, %q, %q, %q", re.alone("k"), re.alone("provoked"), re.alone("off"), re.alone("other"))
		}
		time.Sleep(30*time.Second - 1)
		if re.alone("k") != ReasonPrivate {
			t.Error("it is forgotten early")
		}
		time.Sleep(time.Nanosecond)
		if reason := re.alone("k"); reason != "" {
			t.Errorf("after the while: %q", reason)
		}
		re.leaveAlone("k", ReasonNoStore, time.Hour)
		re.clear("k")
		re.clear("unknown")
		if reason := re.alone("k"); reason != "" {
			t.Errorf("cleared: %q", reason)
		}
	})
}

func TestAllFieldsThatVaryNamedAreRemembered(t *testing.T) {
	re := newRemembered(10)
	re.learn("k", nil)
	if vary := re.vary("k"); vary != nil {
		t.Errorf("%q", vary)
	}
	re.learn("k", []string{"Accept", "Cookie"})
	first := re.vary("k")
	re.learn("k", []string{"Accept", "Origin"})
	re.learn("k", nil)
	if vary := re.vary("k"); !slices.Equal(vary, []string{"Accept", "Cookie", "Origin"}) || !slices.Equal(first, []string{"Accept", "Cookie"}) {
		t.Errorf("%q, then %q", first, vary)
	}
	// A server that names ever more fields does not make the key ever longer.
	for i := range 100 {
		re.learn("k", []string{fmt.Sprintf("X-%03d", i)})
		if vary := re.vary("k"); len(vary) > maxVary || !slices.Contains(vary, fmt.Sprintf("X-%03d", i)) {
			t.Fatalf("%d: %q", i, vary)
		}
	}
}

func TestWhatIsUnderstoodOfAKeyDoesNotCoverAnother(t *testing.T) {
	re := newRemembered(10)
	re.learn("base", []string{"Accept"})
	re.leaveAlone("base", ReasonNoStore, time.Hour)
	if vary := re.vary("base"); len(vary) != 1 || re.alone("base") != ReasonNoStore || re.alone("base #variant") != "" {
		t.Errorf("%q, %q, %q", vary, re.alone("base"), re.alone("base #variant"))
	}
	re.clear("base")
	if len(re.vary("base")) != 1 {
		t.Error("Vary is forgotten with the verdict")
	}
}

func TestTheMemoryIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	re := newRemembered(100)
	re.leaveAlone("used", ReasonPrivate, time.Hour)
	for i := range 10_000 {
		re.learn(fmt.Sprint(i), []string{"Accept"})
		re.alone(fmt.Sprint("unknown", i))
		if re.alone("used") != ReasonPrivate {
			t.Fatalf("what is used is forgotten after %d others", i)
		}
	}
	if len(re.keys) != 100 || re.recent.Len() != 100 {
		t.Errorf("it has %d keys, and %d in order", len(re.keys), re.recent.Len())
	}
	if re.vary("9999") == nil || re.vary("9800") != nil {
		t.Error("it keeps the old, or not the new")
	}
}

func TestAMemoryOfOneKeyKeepsTheLast(t *testing.T) {
	re := newRemembered(1)
	re.leaveAlone("a", ReasonPrivate, time.Hour)
	re.leaveAlone("b", ReasonPrivate, time.Hour)
	if len(re.keys) != 1 || re.alone("a") != "" || re.alone("b") != ReasonPrivate {
		t.Errorf("%d keys: %q, %q", len(re.keys), re.alone("a"), re.alone("b"))
	}
}
