package chaos

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// errKnown is the error of functions that every replica has registered.
var errKnown = errors.New("chaos: known error")

func init() { coalesce.RegisterError("chaos.known", errKnown) }

// Results up to inlineLimit travel in the message, up to payloadLimit they are stored and
// fetched, in pieces of pieceSize, and larger ones cannot travel. Commands over largeCommand
// are large ones.
const (
	inlineLimit  = 256
	largeCommand = 16 << 10
	pieceSize    = 512 << 10
	payloadLimit = 3 * pieceSize
)

// stream returns a source of random numbers that depends on the seed and the
// name alone.
func stream(seed uint64, name string) *rand.Rand {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, seed)
	_, _ = h.Write([]byte(name))
	return rand.New(rand.NewPCG(seed, h.Sum64()))
}

// split returns a source whose use, however often, changes nothing about what r
// goes on to give.
func split(r *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(r.Uint64(), r.Uint64())) }

// between returns a duration from low up to high, by even chance.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}

// step is what a caller does next: calls for one key at once, a call for many keys, or a
// Forget.
type step struct {
	pause  time.Duration // before it
	key    string
	forget bool
	calls  []plan
	keys   []string // of a call for many: calls has its one plan
}

// plan is one call and the function it brings.
type plan struct {
	patience time.Duration // until its context ends; 0: it waits for as long as it takes
	deadline bool          // its context ends by a deadline, else by being cancelled
	function behaviour
}

// behaviour is what a function does.
type behaviour struct {
	takes  time.Duration
	obeys  bool // it ends when its context does
	ending ending
	size   int // of its value, in bytes
}

type ending int

const (
	returnsValue ending = iota
	returnsKnownError
	returnsOtherError
	panics
)

func nextStep(r *rand.Rand, prefix string) step {
	s := step{pause: between(r, 0, 250*time.Millisecond), key: prefix + randomKey(r)}
	if r.IntN(40) == 0 {
		s.forget = true
		return s
	}
	if r.IntN(8) == 0 {
		keys, p := randomBatch(r, prefix)
		s.keys, s.calls = keys, []plan{p}
		return s
	}
	calls := 1
	if r.IntN(6) == 0 {
		calls = 2 + r.IntN(7)
	}
	for range calls {
		s.calls = append(s.calls, randomPlan(r, strings.Contains(s.key, "warm")))
	}
	return s
}

// randomKey returns a hot key in two of three cases: so that most flights have
// followers on other replicas.
func randomKey(r *rand.Rand) string {
	switch n := r.IntN(12); {
	case n < 8:
		return fmt.Sprintf("hot-%d", r.IntN(hotKeys))
	case n < 11:
		return fmt.Sprintf("warm-%d", r.IntN(warmKeys))
	default:
		return fmt.Sprintf("cold-%d", r.IntN(coldKeys))
	}
}

const hotKeys, warmKeys, coldKeys = 4, 20, 1000

// allKeys returns every key that callers may ask for.
func allKeys() (keys []string) {
	for _, of := range []struct {
		name string
		keys int
	}{{"hot", hotKeys}, {"warm", warmKeys}, {"cold", coldKeys}, {"crowd", crowdKeys}} {
		for i := range of.keys {
			keys = append(keys, fmt.Sprintf("%s-%d", of.name, i))
		}
	}
	return keys
}

func randomPlan(r *rand.Rand, large bool) plan {
	p := plan{function: randomBehaviour(r, large)}
	switch n := r.IntN(10); {
	case n < 2:
		p.patience, p.deadline = between(r, 50*time.Millisecond, 3*time.Second), true
	case n < 4:
		p.patience = between(r, time.Millisecond, 1500*time.Millisecond)
	}
	return p
}

// randomBehaviour makes functions that last from nothing to four lease TTLs,
// and a few that last longer than the flight timeout. Only some keys have large results,
// because one that cannot travel keeps its key from being shared for a while.
func randomBehaviour(r *rand.Rand, large bool) behaviour {
	b := behaviour{obeys: r.IntN(2) == 0, size: r.IntN(inlineLimit / 2)}
	switch n := r.IntN(100); {
	case n < 30:
		b.takes = between(r, 0, 20*time.Millisecond)
	case n < 70:
		b.takes = between(r, 20*time.Millisecond, leaseTTL)
	case n < 99:
		b.takes = between(r, leaseTTL, 4*leaseTTL)
	default:
		b.takes = flightTimeout + between(r, 0, leaseTTL)
	}
	switch n := r.IntN(20); {
	case n < 3:
		b.ending = returnsKnownError
	case n < 4:
		b.ending = returnsOtherError
	case n < 5:
		b.ending = panics
	}
	switch n := r.IntN(20); {
	case n < 5:
		b.size = inlineLimit + r.IntN(4<<10)
	case n < 7 && large:
		b.size = largeCommand + r.IntN(2*largeCommand)
	case n < 8 && large && r.IntN(2) == 0:
		b.size = pieceSize + r.IntN(payloadLimit-pieceSize-largeCommand)
	case n < 8 && large:
		b.size = payloadLimit + r.IntN(largeCommand)
	}
	return b
}

// wait takes the function's time. It returns an error where the function obeys its context
// and that has ended.
func (b behaviour) wait(ctx context.Context) error {
	done := (<-chan struct{})(nil)
	if b.obeys {
		done = ctx.Done()
	}
	timer := time.NewTimer(b.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-done:
		return ctx.Err()
	}
}

// run is the function. The value, error or panic it ends with names the
// execution.
func (b behaviour) run(ctx context.Context, execution string) (string, error) {
	if err := b.wait(ctx); err != nil {
		return "", fmt.Errorf("execution %s: %w", execution, err)
	}
	switch b.ending {
	case returnsKnownError:
		return "", fmt.Errorf("execution %s: %w", execution, errKnown)
	case returnsOtherError:
		return "", fmt.Errorf("execution %s: an error that nobody registered", execution)
	case panics:
		panic("execution " + execution)
	}
	return valueOf(execution, b.size), nil
}

// valueOf is what an execution returns: its name, how much is to follow, and that.
func valueOf(execution string, size int) string {
	return fmt.Sprintf("%s|%d|%s", execution, size, strings.Repeat("x", size))
}

// executionOfValue returns the name of the execution that returned the value, and whether
// the value is whole.
func executionOfValue(value string) (execution string, whole bool) {
	execution, rest, _ := strings.Cut(value, "|")
	text, rest, _ := strings.Cut(rest, "|")
	size, err := strconv.Atoi(text)
	return execution, err == nil && len(rest) == size && strings.Trim(rest, "x") == ""
}
