package coalescetest

import (
	"fmt"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce"
)

// keyBehaviours are about the keys of any Group.
var keyBehaviours = []behaviour{
	{name: "keys of any bytes are distinct", check: distinctKeys},
	{name: "flights of many keys run at the same time", check: manyKeys},
	{name: "Forget of keys that nobody calls for does nothing", check: forgetUnknown},
}

// separateBehaviours are about a Group that merges nothing.
var separateBehaviours = []behaviour{
	{name: "each of several callers runs its own function", check: separateCalls},
}

// oddKeys look alike to a Group that trims, folds, normalises, hashes a part of or
// parses its keys. Braces have a meaning in the keys of a Redis Cluster.
func oddKeys() []string {
	long := strings.Repeat("k", 300)
	return []string{
		"", " ", "\x00", "\n",
		"a", "A", "a ", " a", "a\x00", "a\n", "aa",
		"\xff", "\xfe", "a\xff", "\xc3\xa9", "e\u0301", "\xe9",
		"{", "}", "{}", "{a}", "{a", "a}", "{}a", "{a}b", "x{a}b", "{{a}}",
		":", "a:", ":a", "a:lease", "a:b", "a:b:c", "product:1", "product:10", "*", "%s", "a/b", "a%2Fb",
		long, long + "k", long + "l", "l" + long, strings.Repeat("k", 70_000), strings.Repeat("k", 70_000) + "k",
	}
}

// leadAll has one caller lead a flight of each key, all at the same time.
func (x *exercise) leadAll(group int, keys []string) []leader {
	x.Helper()
	leaders := make([]leader, len(keys))
	for i, key := range keys {
		leaders[i].fn = x.function()
		leaders[i].caller = x.call(keyName(key), group, key, leaders[i].fn.run)
	}
	for i, l := range leaders {
		select {
		case l.flight = <-l.fn.began:
		case <-l.done:
			x.Fatalf("%s %s while the flights of other keys were running, want it to lead one of its own", l.name, l.ends())
		case <-timeUp():
			x.Fatalf("the function of %s does not run beside those of other keys", l.name)
		}
		leaders[i] = l
	}
	return leaders
}

func keyName(key string) string {
	if len(key) > 20 {
		return fmt.Sprintf("the caller of key %q… (%d bytes)", key[:20], len(key))
	}
	return fmt.Sprintf("the caller of key %q", key)
}

func distinctKeys(x *exercise) {
	g := x.group()
	for i, l := range x.leadAll(g, oddKeys()) {
		want := fmt.Sprint("value ", i)
		l.fn.returns(want, nil)
		l.gets(want, coalesce.Leader)
		l.fn.ranOnce()
	}
}

func manyKeys(x *exercise) {
	g := x.group()
	keys := make([]string, 500)
	for i := range keys {
		keys[i] = fmt.Sprint("product:", i)
	}
	for i, l := range x.leadAll(g, keys) {
		l.fn.returns(keys[i], nil)
		l.gets(keys[i], coalesce.Leader)
	}
}

func forgetUnknown(x *exercise) {
	g := x.group()
	ctx, _ := x.context()
	for _, keys := range [][]string{nil, {"key"}, {"key", "other", "key"}, {""}} {
		if err := x.groups[g].Forget(ctx, keys...); err != nil {
			x.Errorf("Forget(%q): %v", keys, err)
		}
	}
	l := x.lead("the caller", g, "key")
	l.fn.returns("value", nil)
	l.gets("value", coalesce.Leader)
}

func separateCalls(x *exercise) {
	g := x.group()
	var leaders []leader
	for i := range 3 {
		leaders = append(leaders, x.lead(fmt.Sprint("caller ", i+1), g, "key"))
	}
	for _, l := range leaders {
		l.fn.returns(l.name, nil)
		l.gets(l.name, coalesce.Leader)
	}
}
