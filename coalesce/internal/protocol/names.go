package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce/internal/wire"
)

// maxKeyLen is the length, in bytes, of the longest key that stands in Redis as it is. A
// longer one is replaced by its hash.
const maxKeyLen = 200

// hashedKey starts the name of a key that stands in Redis as its hash.
const hashedKey = "sha256:"

// Space is what the names of one group's keys and channels have in common.
type Space struct {
	start    string // of all: the fleet's namespace and the group's name
	database string // the end of channels, for which see Database
	fleet    string // the start of the ids of flights
}

// escapeName keeps a group's name apart from the namespace before it and the
// braces after it, so that no two groups share a name in Redis.
var escapeName = strings.NewReplacer("%", "%25", ":", "%3A", "{", "%7B", "}", "%7D")

// NewSpace returns the space of a group whose client uses the database, in the fleet that
// NewFleetID named. The namespace must have no braces; the group's name may have any bytes.
// No two groups have one space.
func NewSpace(namespace, group string, database int, fleet string) Space {
	return Space{namespace + ":" + escapeName.Replace(group), inDatabase(database), fleet}
}

// Database returns the number of the database that the client's keys are in, and whether
// the client is known to have one server alone. On a Redis Cluster, and for a client that
// does not tell, it is 0. The channels of a server are the same in all its databases, so
// their names end with the number: fleets in two databases of one server do not hear each
// other.
func Database(client redis.UniversalClient) (number int, oneServer bool) {
	if c, ok := client.(interface{ Options() *redis.Options }); ok {
		return c.Options().DB, true
	}
	return 0, false
}

func inDatabase(database int) string { return "@" + strconv.Itoa(database) }

// Names are the names that one caller's key has in Redis for a flight, and the
// flight's id. They stand in one string, one after the other, because that is one
// allocation. They share a hash tag, so that a Redis Cluster keeps them in one slot.
type Names struct {
	all     string
	prefix  int // the length of what each name begins with
	channel int // the length of the channel's name, which stands last
	args    nameArgs
}

// nameArgs are names as the scripts' arguments. They are made once: each step would
// make an interface of each.
type nameArgs struct{ lease, attempts, latest, over, flight any }

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
	prefix := len(space.start) + len(":{}") + len(key)
	id := newFlightID(space.fleet)
	var all strings.Builder
	all.Grow(6*prefix + resultsEnd + len(":over:") + len(space.database) + 2*wire.FlightIDLen)
	for _, suffix := range [...]string{":lease", ":attempts", ":latest", ":result:", ":over:", space.database} {
		all.WriteString(space.start)
		all.WriteString(":{")
		all.WriteString(key)
		all.WriteString("}")
		all.WriteString(suffix)
		if suffix == ":result:" || suffix == ":over:" {
			all.Write(id[:])
		}
	}
	n := Names{all: all.String(), prefix: prefix, channel: prefix + len(space.database)}
	n.args = nameArgs{n.lease(), n.attempts(), n.latest(), n.over(), n.Flight()}
	return n
}

// Channel returns the channel on which the outcomes of the key's flights are published.
func (n Names) Channel() string { return n.all[len(n.all)-n.channel:] }

// database returns the end of the channel's name.
func (n Names) database() string { return n.Channel()[n.prefix:] }

// Flight returns the id of the new flight, which is wire.FlightIDLen bytes long.
func (n Names) Flight() string { return n.result()[len(n.results()):] }

func (n Names) lease() string    { return n.all[:n.prefix+leaseEnd] }
func (n Names) attempts() string { return n.all[n.prefix+leaseEnd : 2*n.prefix+attemptsEnd] }
func (n Names) latest() string   { return n.all[2*n.prefix+attemptsEnd : 3*n.prefix+latestEnd] }
func (n Names) result() string {
	return n.all[3*n.prefix+latestEnd : 4*n.prefix+resultsEnd+wire.FlightIDLen]
}
func (n Names) over() string {
	return n.all[4*n.prefix+resultsEnd+wire.FlightIDLen : len(n.all)-n.channel]
}

// results returns what the id of a flight of the key must follow.
func (n Names) results() string { return trimFlight(n.result()) }

func trimFlight(name string) string { return name[:len(name)-wire.FlightIDLen] }

// resultOf and overOf return names that another flight of the same key has.
func (n Names) resultOf(flight string) string { return n.results() + flight }
func (n Names) overOf(flight string) string   { return trimFlight(n.over()) + flight }

// controlStart returns what the id of a Fleet must follow in the name of its control channel.
func controlStart(namespace string) string { return namespace + ":control:" }

// ControlChannel returns the channel on which a Fleet, whose client uses the database, hears
// of keys that were forgotten while it led a flight of them.
func ControlChannel(namespace, fleet string, database int) string {
	return controlStart(namespace) + fleet + inDatabase(database)
}

// probeKey returns the key that a probe writes, with the hash tag of near, if it has one.
func probeKey(namespace, near string) string {
	_, rest, _ := strings.Cut(near, "{")
	if tag, _, ok := strings.Cut(rest, "}"); ok {
		return namespace + ":probe:{" + tag + "}"
	}
	return namespace + ":probe"
}

// fleetIDLen is how many bytes at the start of a flight's id name the Fleet that leads it.
// The script of a forget relies on it.
const fleetIDLen = 8

// NewFleetID returns a new, random name for a Fleet.
func NewFleetID() string {
	var id [fleetIDLen]byte
	fillRandom(id[:])
	return string(id[:])
}

// FleetOf returns the id of the Fleet that leads a flight; "" for what is no flight's id.
func FleetOf(flight string) string {
	if len(flight) != wire.FlightIDLen {
		return ""
	}
	return flight[:fleetIDLen]
}

// newFlightID returns the fleet's id and 84 random bits after it. The scripts rely on its
// length.
func newFlightID(fleet string) (id [wire.FlightIDLen]byte) {
	fillRandom(id[copy(id[:], fleet):])
	return id
}

// fillRandom fills b with 6 random bits a byte.
func fillRandom(b []byte) {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	bits := uint64(0)
	for i := range b {
		if i%10 == 0 {
			bits = rand.Uint64()
		}
		b[i] = digits[bits&63]
		bits >>= 6
	}
}
