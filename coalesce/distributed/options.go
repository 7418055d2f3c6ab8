package distributed

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
)

// Option changes a setting of a Group. New refuses bad values with an error
// that names the option.
type Option func(*settings) error

type settings struct {
	namespace     string
	leaseTTL      time.Duration
	flightTimeout time.Duration
	maxAge        time.Duration
	redisTimeout  time.Duration
	maxTakeovers  int
	codec         coalesce.Codec
	inlineLimit   int
	payloadLimit  int
	failClosed    bool
	log           *slog.Logger
	replicaID     string
	observer      Observer

	args arguments
}

// arguments are settings as the scripts want them: made once, since each call
// would make an interface of each.
type arguments struct{ replicaID, leaseTTL, flightTimeout, attempts, handoffTTL, maxAge any }

func (s *settings) arguments() arguments {
	return arguments{
		replicaID:     s.replicaID,
		leaseTTL:      s.leaseTTL.Milliseconds(),
		flightTimeout: s.flightTimeout.Milliseconds(),
		attempts:      s.maxTakeovers + 1,
		handoffTTL:    s.handoffTTL().Milliseconds(),
		maxAge:        s.maxAge.Microseconds(),
	}
}

func defaults() settings {
	host, _ := os.Hostname()
	return settings{
		namespace:     "fleetcall",
		leaseTTL:      3 * time.Second,
		flightTimeout: 30 * time.Second,
		redisTimeout:  250 * time.Millisecond,
		maxTakeovers:  2,
		inlineLimit:   64 << 10,
		payloadLimit:  8 << 20,
		log:           slog.New(slog.DiscardHandler),
		replicaID:     host + "-" + rand.Text()[:8],
	}
}

// handoffTTL is how long an outcome waits in Redis for a follower that missed
// its message. Such a follower looks when the lease it saw has run out.
func (s *settings) handoffTTL() time.Duration { return 2*s.leaseTTL + 2*s.redisTimeout }

// WithNamespace sets the prefix of every key and channel in Redis; the default
// is "fleetcall". Groups that share a namespace share flights: their results
// must be of one type.
func WithNamespace(namespace string) Option {
	return func(s *settings) error {
		if namespace == "" || strings.ContainsAny(namespace, "{}") {
			return fmt.Errorf("fleetcall: WithNamespace: %q must not be empty or contain braces", namespace)
		}
		s.namespace = namespace
		return nil
	}
}

// WithLeaseTTL sets how long a leader's lease lives without renewal, and so
// how long a dead leader delays its followers; the default is 3 s. It is
// renewed every third of it.
func WithLeaseTTL(ttl time.Duration) Option {
	return positive("WithLeaseTTL", ttl, func(s *settings) { s.leaseTTL = ttl })
}

// WithFlightTimeout sets how long a function may run and a caller wait before
// it gets coalesce.ErrFlightTimeout; the default is 30 s.
func WithFlightTimeout(timeout time.Duration) Option {
	return positive("WithFlightTimeout", timeout, func(s *settings) { s.flightTimeout = timeout })
}

// WithMaxAge lets callers take a value that finished at most age before they
// came; the default, 0, gives them flights only that still ran. Errors are
// never kept.
func WithMaxAge(age time.Duration) Option {
	return func(s *settings) error {
		if age < 0 || age > 0 && age < time.Millisecond {
			return fmt.Errorf("fleetcall: WithMaxAge: %v must be 0 or at least 1ms", age)
		}
		s.maxAge = age
		return nil
	}
}

// WithRedisTimeout sets how long one command may take before the group goes on
// without Redis; the default is 250 ms. One that carries an outcome, or fetches
// one, may take 1 ms more for each 16 KiB of it. It holds whatever the client's
// own timeouts are.
func WithRedisTimeout(timeout time.Duration) Option {
	return positive("WithRedisTimeout", timeout, func(s *settings) { s.redisTimeout = timeout })
}

// WithMaxTakeovers sets how many further replicas may lead a key after one
// died leading it, before callers get coalesce.ErrPoisoned; the default is 2.
func WithMaxTakeovers(n int) Option {
	return func(s *settings) error {
		if n < 0 {
			return fmt.Errorf("fleetcall: WithMaxTakeovers: %d must not be negative", n)
		}
		s.maxTakeovers = n
		return nil
	}
}

// WithCodec sets how results travel; the default is coalesce.Raw for []byte
// and coalesce.JSON for all else.
func WithCodec(codec coalesce.Codec) Option {
	return func(s *settings) error {
		if codec == nil {
			return fmt.Errorf("fleetcall: WithCodec: the codec must not be nil")
		}
		if n := len(codec.Name()); n == 0 || n > 255 {
			return fmt.Errorf("fleetcall: WithCodec: the codec's name has %d bytes, not 1 to 255", n)
		}
		s.codec = codec
		return nil
	}
}

// WithInlineLimit sets up to how many bytes an encoded result travels in the
// message itself; a larger one is fetched. The default is 64 KiB.
func WithInlineLimit(bytes int) Option {
	return func(s *settings) error {
		if bytes < 0 {
			return fmt.Errorf("fleetcall: WithInlineLimit: %d must not be negative", bytes)
		}
		s.inlineLimit = bytes
		return nil
	}
}

// WithPayloadLimit sets up to how many bytes an encoded result travels at all;
// the followers of a larger one run their own function. The default is 8 MiB.
func WithPayloadLimit(bytes int) Option {
	return func(s *settings) error {
		if bytes <= 0 {
			return fmt.Errorf("fleetcall: WithPayloadLimit: %d must be positive", bytes)
		}
		s.payloadLimit = bytes
		return nil
	}
}

// WithFailClosed makes callers get coalesce.ErrUnavailable when Redis cannot
// be used, instead of one execution per replica.
func WithFailClosed() Option {
	return func(s *settings) error {
		s.failClosed = true
		return nil
	}
}

// WithLogger sets where takeovers, lost leases and changes of the breaker are
// logged; by default they are not.
func WithLogger(log *slog.Logger) Option {
	return func(s *settings) error {
		if log == nil {
			return fmt.Errorf("fleetcall: WithLogger: the logger must not be nil")
		}
		s.log = log
		return nil
	}
}

// WithReplicaID sets the name of this process in leases and logs; the default
// is the host's name and a random suffix.
func WithReplicaID(id string) Option {
	return func(s *settings) error {
		if id == "" || len(id) > 255 {
			return fmt.Errorf("fleetcall: WithReplicaID: the id has %d bytes, not 1 to 255", len(id))
		}
		s.replicaID = id
		return nil
	}
}

// WithObserver adds one who is told what the group does; by default nobody is.
// Of several, each is told, in the order in which they were added.
func WithObserver(observer Observer) Option {
	return func(s *settings) error {
		if observer == nil {
			return fmt.Errorf("fleetcall: WithObserver: the observer must not be nil")
		}
		if s.observer != nil {
			observer = observers{s.observer, observer}
		}
		s.observer = observer
		return nil
	}
}

// positive refuses what Redis, which counts in milliseconds, would take for 0.
func positive(option string, d time.Duration, set func(*settings)) Option {
	return func(s *settings) error {
		if d < time.Millisecond {
			return fmt.Errorf("fleetcall: %s: %v must be at least 1ms", option, d)
		}
		set(s)
		return nil
	}
}
