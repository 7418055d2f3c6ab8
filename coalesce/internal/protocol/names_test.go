package protocol

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// fleet is the id of a Fleet.
const fleet = "fleet-id"

// allNames returns every name that n has, by what it is.
func (n Names) allNames() map[string]string {
	return map[string]string{
		"channel": n.Channel(), "lease": n.lease(), "attempts": n.attempts(), "latest": n.latest(),
		"result": n.result(), "mark that it is over": n.over(),
	}
}

func TestNamesStandInRedisAsTheyAreDocumented(t *testing.T) {
	n := NewNames(NewSpace("fleetcall", "products", 3, fleet), "p1")
	id := n.Flight()
	for what, want := range map[string]string{
		"channel": "fleetcall:products:{p1}@3", "lease": "fleetcall:products:{p1}:lease",
		"attempts": "fleetcall:products:{p1}:attempts", "latest": "fleetcall:products:{p1}:latest",
		"result": "fleetcall:products:{p1}:result:" + id, "mark that it is over": "fleetcall:products:{p1}:over:" + id,
	} {
		if got := n.allNames()[what]; got != want {
			t.Errorf("the %s is %q, not %q", what, got, want)
		}
	}
	const other = "another-flight-22chars"
	if got, want := n.resultOf(other), "fleetcall:products:{p1}:result:"+other; got != want {
		t.Errorf("the result of another flight is %q, not %q", got, want)
	}
	if got, want := n.overOf(other), "fleetcall:products:{p1}:over:"+other; got != want {
		t.Errorf("the mark of another flight is %q, not %q", got, want)
	}
	if ControlChannel("fleetcall", fleet, 3) != "fleetcall:control:"+fleet+"@3" || probeKey("fleetcall", "") != "fleetcall:probe" {
		t.Errorf("the fleet's own names are %q, %q", ControlChannel("fleetcall", fleet, 3), probeKey("fleetcall", ""))
	}
}

// origin is what names are made of.
type origin struct{ namespace, group, key string }

// awkward are origins that one name could stand for.
func awkward(r *rand.Rand) (all []origin) {
	texts := []string{
		"", "a", "b", ":", "::", "a:", ":a", "a:b", "{", "}", "{}", "{a}", "a}:{b", "}:lease", "%", "%25", "%3A", "%7B", "%7b", "%253A",
		"lease", ":lease", "a:lease", "latest", "result", "control", "probe", "control:" + fleet, "sha256:", "sha256:a", "\x00", "\xff\xfe", "é", "\n", " ",
		strings.Repeat("k", maxKeyLen), strings.Repeat("k", maxKeyLen+1), strings.Repeat("k", maxKeyLen) + "x",
	}
	for range 20 {
		b := make([]byte, 1+r.IntN(6))
		for i := range b {
			b[i] = "a:{}%25AB37@0\x00\xff"[r.IntN(15)]
		}
		texts = append(texts, string(b))
	}
	hashed := NewNames(NewSpace("ns", "g", 0, fleet), "{").Channel()
	texts = append(texts, strings.TrimSuffix(strings.TrimPrefix(hashed, "ns:g:{"), "}@0")) // the hash of another key, as a key
	for _, namespace := range []string{"a", "a:a", "a%3A"} {                               // options refuse braces
		for _, group := range texts {
			for _, key := range texts {
				all = append(all, origin{namespace, group, key})
			}
		}
	}
	return all
}

func random(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestNoTwoKeysShareAName has namespaces, groups and keys with all bytes that names
// are put together with.
func TestNoTwoKeysShareAName(t *testing.T) {
	owners := map[string]origin{}
	for _, o := range slices.Compact(awkward(random(t))) {
		n := NewNames(NewSpace(o.namespace, o.group, 0, fleet), o.key)
		for what, name := range n.allNames() {
			if what == "channel" {
				what = "" // channels and keys are apart in Redis
			} else {
				what = "key "
			}
			owner, taken := owners[what+name]
			if taken && owner != o {
				t.Fatalf("%q is a name of %q and of %q", name, owner, o)
			}
			owners[what+name] = o
		}
	}
	for _, namespace := range []string{"a", "b"} {
		if o, taken := owners["key "+probeKey(namespace, "")]; taken {
			t.Errorf("the probe's key is a name of %q", o)
		}
		if o, taken := owners[ControlChannel(namespace, fleet, 0)]; taken {
			t.Errorf("the control channel is a name of %q", o)
		}
	}
	t.Logf("%d names", len(owners))
}

// tag is the part of a name that a Redis Cluster places it by: what is between the
// first brace and the next that closes, unless that is nothing.
func tag(name string) string {
	_, rest, opened := strings.Cut(name, "{")
	inner, _, closed := strings.Cut(rest, "}")
	if !opened || !closed || inner == "" {
		return "all of " + name
	}
	return inner
}

func TestNamesOfAKeyShareASlot(t *testing.T) {
	for _, o := range awkward(random(t)) {
		n := NewNames(NewSpace(o.namespace, o.group, 0, fleet), o.key)
		tags := map[string]bool{}
		for _, name := range n.allNames() {
			tags[tag(name)] = true
		}
		for _, name := range []string{n.resultOf("another-flight-22chars"), n.overOf("another-flight-22chars")} {
			tags[tag(name)] = true
		}
		if len(tags) != 1 || strings.HasPrefix(slices.Collect(maps.Keys(tags))[0], "all of ") {
			t.Fatalf("%q has the hash tags %q", o, slices.Collect(maps.Keys(tags)))
		}
	}
}

func TestALongOrAwkwardKeyStandsAsItsHash(t *testing.T) {
	for key, hashed := range map[string]bool{
		"k": false, "tenant:7:user:é": false, "\x00\xff": false, "%7B": false, strings.Repeat("k", maxKeyLen): false,
		"": true, "{k}": true, "k}": true, "{": true, "sha256:k": true, strings.Repeat("k", maxKeyLen+1): true,
	} {
		if channel := NewNames(NewSpace("ns", "g", 0, fleet), key).Channel(); strings.HasPrefix(channel, "ns:g:{sha256:") != hashed {
			t.Errorf("%q stands as %q", key, channel)
		}
	}
	// Replicas of another version must make the same name of it.
	if got, want := NewNames(NewSpace("ns", "g", 0, fleet), "").Channel(), "ns:g:{sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}@0"; got != want {
		t.Errorf("the empty key stands as %q, not %q", got, want)
	}
}

func TestFlightIDsAreUniqueAndAsLongAsTheScriptsRelyOn(t *testing.T) {
	seen := map[string]bool{}
	for range 10_000 {
		id := NewNames(NewSpace("ns", "g", 0, fleet), "k").Flight()
		if len(id) != wire.FlightIDLen || FleetOf(id) != fleet || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
			t.Fatalf("a flight's id is %q", id)
		}
		if seen[id] {
			t.Fatalf("%q is the id of two flights", id)
		}
		seen[id] = true
	}
	if id := NewFleetID(); len(id) != fleetIDLen || id == NewFleetID() {
		t.Errorf("a Fleet's id is %q", id)
	}
	if id := FleetOf("no flight"); id != "" {
		t.Errorf("what is no flight is of the Fleet %q", id)
	}
	files, err := fs.Glob(sources, "lua/*.lua")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		source, err := fs.ReadFile(sources, file)
		if err != nil {
			t.Fatal(err)
		}
		if cut := fmt.Sprintf("sub(lease, 2, %d)", wire.FlightIDLen+1); strings.Count(string(source), "sub(lease, 2,") != strings.Count(string(source), cut) {
			t.Errorf("%s cuts ids of another length out of a lease than %s", file, cut)
		}
	}
}

// TestNamesAreOneString allows for the string, and for an interface of each of the five
// names that several steps need.
func TestNamesAreOneString(t *testing.T) {
	space := NewSpace("fleetcall", "products", 3, fleet)
	if n := testing.AllocsPerRun(100, func() { _ = NewNames(space, "p1") }); n > 1+5 {
		t.Errorf("they are %v allocations", n)
	}
}

// wrapped is a client of a user's own.
type wrapped struct{ redis.UniversalClient }

func TestTheDatabaseIsTheClients(t *testing.T) {
	for name, c := range map[string]struct {
		client redis.UniversalClient
		want   int
		one    bool
	}{
		"a server's":   {redis.NewClient(&redis.Options{DB: 3}), 3, true},
		"a Sentinel's": {redis.NewFailoverClient(&redis.FailoverOptions{DB: 4}), 4, true},
		"a Cluster's":  {redis.NewClusterClient(&redis.ClusterOptions{}), 0, false},
		"a user's own": {wrapped{redis.NewClient(&redis.Options{DB: 5})}, 0, false},
		"one's around": {struct{ *redis.Client }{redis.NewClient(&redis.Options{DB: 6})}, 6, true},
	} {
		if got, one := Database(c.client); got != c.want || one != c.one {
			t.Errorf("%s is %d, one server: %v", name, got, one)
		}
		_ = c.client.Close()
	}
}
