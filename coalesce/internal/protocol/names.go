package protocol

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// maxKeyLen is the length, in bytes, of the longest key that stands in Redis as it is. A
// longer one is replaced by its hash.
const maxKeyLen = 200

// hashedKey starts the name of a key that stands in Redis as its hash.
const hashedKey = "sha256:"

// Space begins the names of one group's keys: it is the fleet's namespace and the
// group's name.
type Space string

// escapeName keeps a group's name apart from the namespace before it and the
// braces after it, so that no two groups share a name in Redis.
var escapeName = strings.NewReplacer("%", "%25", ":", "%3A", "{", "%7B", "}", "%7D")

// NewSpace returns the space of a group. The namespace must have no braces; the group's
// name may have any bytes. No two groups have one space.
func NewSpace(namespace, group string) Space {
	return Space(namespace + ":" + escapeName.Replace(group))
}

// Names are the names that one caller's key has in Redis for a flight, and the
// flight's id. They stand in one string, one after the other, because that is one
// allocation. They share a hash tag, so that a Redis Cluster keeps them in one slot.
type Names struct {
	all    string
	prefix int // the length of the channel's name, with which each other name begins
	args   nameArgs
}

// nameArgs are names as the scripts' arguments. They are made once: each step would
// make an interface of each.
type nameArgs struct{ lease, attempts, latest, detached, flight any }

// The places in Names.all where the names end, without the prefixes and the flight ids
// that stand before.
const (
	leaseEnd    = len(":lease")
	attemptsEnd = leaseEnd + len(":attempts")
	latestEnd   = attemptsEnd + len(":latest")
	resultsEnd  = latestEnd + len(":result:")
)

// NewNames returns the names for a new flight of a caller's key, which may have any
// bytes. The flight's id is new and random.
func NewNames(space Space, key string) Names {
	// A brace would move or empty the hash tag, and an empty tag is none. A
	// key that looks hashed is hashed, so that no two keys get one name.
	if key == "" || len(key) > maxKeyLen || strings.ContainsAny(key, "{}") || strings.HasPrefix(key, hashedKey) {
		sum := sha256.Sum256([]byte(key))
		key = hashedKey + hex.EncodeToString(sum[:])
	}
	prefix := len(space) + len(":{}") + len(key)
	id := newFlightID()
	var all strings.Builder
	all.Grow(5*prefix + resultsEnd + len(":detached:") + 2*wire.FlightIDLen)
	for _, suffix := range [...]string{":lease", ":attempts", ":latest", ":result:", ":detached:"} {
		all.WriteString(string(space))
		all.WriteString(":{")
		all.WriteString(key)
		all.WriteString("}")
		all.WriteString(suffix)
		if suffix == ":result:" {
			all.Write(id[:])
		}
	}
	all.Write(id[:])
	n := Names{all: all.String(), prefix: prefix}
	n.args = nameArgs{n.lease(), n.attempts(), n.latest(), n.detached(), n.Flight()}
	return n
}

// Channel returns the channel on which the outcomes of the key's flights are published.
func (n Names) Channel() string { return n.all[:n.prefix] }

// Flight returns the id of the new flight, which is wire.FlightIDLen bytes long.
func (n Names) Flight() string { return n.all[len(n.all)-wire.FlightIDLen:] }

func (n Names) lease() string    { return n.all[:n.prefix+leaseEnd] }
func (n Names) attempts() string { return n.all[n.prefix+leaseEnd : 2*n.prefix+attemptsEnd] }
func (n Names) latest() string   { return n.all[2*n.prefix+attemptsEnd : 3*n.prefix+latestEnd] }
func (n Names) result() string {
	return n.all[3*n.prefix+latestEnd : 4*n.prefix+resultsEnd+wire.FlightIDLen]
}
func (n Names) detached() string { return n.all[4*n.prefix+resultsEnd+wire.FlightIDLen:] }

// results and detachments return what a flight's id must follow.
func (n Names) results() string     { return trimFlight(n.result()) }
func (n Names) detachments() string { return trimFlight(n.detached()) }

func trimFlight(name string) string { return name[:len(name)-wire.FlightIDLen] }

// resultOf and detachedOf return names that another flight of the same key has.
func (n Names) resultOf(flight string) string   { return n.results() + flight }
func (n Names) detachedOf(flight string) string { return n.detachments() + flight }

// ControlChannel returns the channel on which all replicas of a fleet hear of forgotten
// keys.
func ControlChannel(namespace string) string { return namespace + ":control" }

// probeKey returns the key that a probe writes.
func probeKey(namespace string) string { return namespace + ":probe" }

// newFlightID returns 128 random bits in base64. The scripts rely on its length.
func newFlightID() (id [wire.FlightIDLen]byte) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	base64.RawURLEncoding.Encode(id[:], b[:])
	return id
}
