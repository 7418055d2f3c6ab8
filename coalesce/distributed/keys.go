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

// keys are the names that one caller's key has in Redis. They share a hash
// tag, so that a Redis Cluster keeps them in one slot.
type keys struct {
	channel, lease, attempts, latest string

	results, detachments string // to be followed by a flight id
}

func newKeys(namespace, key string) keys {
	// A brace would move or empty the hash tag, and an empty tag is none. A
	// key that looks hashed is hashed, so that no two keys get one name.
	if key == "" || len(key) > longestKey || strings.ContainsAny(key, "{}") || strings.HasPrefix(key, hashedKey) {
		sum := sha256.Sum256([]byte(key))
		key = hashedKey + hex.EncodeToString(sum[:])
	}
	// One string for all of them is one allocation.
	channel := namespace + ":{" + key + "}"
	all := channel + ":lease" + channel + ":attempts" + channel + ":latest" + channel + ":result:" + channel + ":detached:"
	next := func(suffix int) string {
		name := all[:len(channel)+suffix]
		all = all[len(name):]
		return name
	}
	return keys{
		channel:     channel,
		lease:       next(len(":lease")),
		attempts:    next(len(":attempts")),
		latest:      next(len(":latest")),
		results:     next(len(":result:")),
		detachments: next(len(":detached:")),
	}
}

func (k keys) result(flight string) string   { return k.results + flight }
func (k keys) detached(flight string) string { return k.detachments + flight }

func controlChannel(namespace string) string { return namespace + ":control" }

// flightIDLen is the length of a flight id: 128 random bits in base64. The
// scripts rely on it.
const flightIDLen = 22

func newFlightID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	return base64.RawURLEncoding.EncodeToString(b[:])
}
