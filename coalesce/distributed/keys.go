package distributed

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

// longestKey is how long a caller's key may be to stand in Redis as it is.
const longestKey = 200

// hashedKey starts the name of a key that stands in Redis as its hash.
const hashedKey = "sha256:"

// keys are the names that one caller's key has in Redis for a flight, and the
// flight's id, one behind the other: one string is one allocation. They share a
// hash tag, so that a Redis Cluster keeps them in one slot.
type keys struct {
	all    string
	tagged int // the length of what each name begins with, the channel's name
}

// Where the names end, but for what they begin with and for flight ids.
const (
	leaseEnd    = len(":lease")
	attemptsEnd = leaseEnd + len(":attempts")
	latestEnd   = attemptsEnd + len(":latest")
	resultsEnd  = latestEnd + len(":result:")
)

// newKeys returns the names for a new flight of a caller's key.
func newKeys(namespace, key string) keys {
	// A brace would move or empty the hash tag, and an empty tag is none. A
	// key that looks hashed is hashed, so that no two keys get one name.
	if key == "" || len(key) > longestKey || strings.ContainsAny(key, "{}") || strings.HasPrefix(key, hashedKey) {
		sum := sha256.Sum256([]byte(key))
		key = hashedKey + hex.EncodeToString(sum[:])
	}
	channel := namespace + ":{" + key + "}"
	id := newFlightID()
	var all strings.Builder
	all.Grow(5*len(channel) + resultsEnd + len(":detached:") + 2*flightIDLen)
	for _, suffix := range []string{":lease", ":attempts", ":latest", ":result:"} {
		all.WriteString(channel)
		all.WriteString(suffix)
	}
	all.Write(id[:])
	all.WriteString(channel)
	all.WriteString(":detached:")
	all.Write(id[:])
	return keys{all.String(), len(channel)}
}

func (k keys) channel() string  { return k.all[:k.tagged] }
func (k keys) lease() string    { return k.all[:k.tagged+leaseEnd] }
func (k keys) attempts() string { return k.all[k.tagged+leaseEnd : 2*k.tagged+attemptsEnd] }
func (k keys) latest() string   { return k.all[2*k.tagged+attemptsEnd : 3*k.tagged+latestEnd] }
func (k keys) result() string {
	return k.all[3*k.tagged+latestEnd : 4*k.tagged+resultsEnd+flightIDLen]
}
func (k keys) detached() string { return k.all[4*k.tagged+resultsEnd+flightIDLen:] }
func (k keys) flight() string   { return k.all[len(k.all)-flightIDLen:] }

// results and detachments are to be followed by a flight id.
func (k keys) results() string     { return trimFlight(k.result()) }
func (k keys) detachments() string { return trimFlight(k.detached()) }

func trimFlight(name string) string { return name[:len(name)-flightIDLen] }

// Of another flight of the same key.
func (k keys) resultOf(flight string) string   { return k.results() + flight }
func (k keys) detachedOf(flight string) string { return k.detachments() + flight }

// names are keys as the scripts' arguments: made once, since each script would make
// an interface of each.
type names struct{ flight, lease, attempts, latest, detached any }

func (k keys) names() names {
	return names{k.flight(), k.lease(), k.attempts(), k.latest(), k.detached()}
}

func controlChannel(namespace string) string { return namespace + ":control" }

// probeKey is what the breaker's probe writes to.
func probeKey(namespace string) string { return namespace + ":probe" }

// flightIDLen is the length of a flight id: 128 random bits in base64. The
// scripts rely on it.
const flightIDLen = 22

func newFlightID() (id [flightIDLen]byte) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	base64.RawURLEncoding.Encode(id[:], b[:])
	return id
}
