package distributed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// Option changes a setting of a Fleet. Open refuses bad values with an error that
// names the option.
type Option interface{ applyToFleet(*fleetSettings) error }

// GroupOption changes a setting of a Group, for NewGroup. Given to Open, it is the
// default of all Groups. Some can be given to With, too: each option says so.
type GroupOption interface {
	Option
	applyToGroup(*groupSettings) error
	// together names the option when all calls of a flight must agree on it, so
	// that With cannot change it.
	together() string
}

type fleetSettings struct {
	namespace    string
	redisTimeout time.Duration
	log          *slog.Logger // nil: slog.Default()
	replicaID    string
	hooks        hooks
	group        groupSettings // of a Group that does not say otherwise
}

type groupSettings struct {
	leaseTTL      time.Duration
	flightTimeout time.Duration
	maxAge        time.Duration
	maxTakeovers  int
	codec         any // a coalesce.Codec[V]; nil: the default
	allowLossy    bool
	inlineLimit   int
	payloadLimit  int
	failClosed    bool
	adaptive      bool
}

const defaultLeaseTTL = 3 * time.Second

var defaultRedisTimeout = 250 * time.Millisecond // a variable for the examples' sake

func defaults() fleetSettings {
	host, _ := os.Hostname()
	return fleetSettings{
		namespace:    "fleetcall",
		redisTimeout: defaultRedisTimeout,
		replicaID:    host + "-" + rand.Text()[:8],
		group: groupSettings{
			leaseTTL:      defaultLeaseTTL,
			flightTimeout: 30 * time.Second,
			maxTakeovers:  2,
			inlineLimit:   64 << 10,
			payloadLimit:  8 << 20,
		},
	}
}

// check refuses settings that make no sense together.
func (s *groupSettings) check(redisTimeout time.Duration) error {
	if redisTimeout > s.leaseTTL {
		return fmt.Errorf("a Redis timeout of %v is over the lease TTL of %v: a leader could not renew its lease in time; lower WithRedisTimeout or raise WithLeaseTTL", redisTimeout, s.leaseTTL)
	}
	return nil
}

// handoffTTL is how long an outcome waits in Redis for a follower that missed
// its message. Such a follower looks when the lease it saw has run out.
func (s *groupSettings) handoffTTL(redisTimeout time.Duration) time.Duration {
	return 2*s.leaseTTL + 2*redisTimeout
}

// protocol returns the settings of the steps. Whatever With changes, the deaths of a
// key's leaders are counted for the flight timeout of the Group.
func (s *groupSettings) protocol(f *fleetSettings, flightTimeout time.Duration, tag string) protocol.Settings {
	return protocol.SettingsOf(f.replicaID, s.leaseTTL, flightTimeout, s.maxTakeovers, s.handoffTTL(f.redisTimeout), s.maxAge).Tagged(tag)
}

// fleetOption is an Option that no Group has for itself.
type fleetOption func(*fleetSettings) error

func (o fleetOption) applyToFleet(s *fleetSettings) error { return o(s) }

// groupOption is an option that each call may have for itself.
type groupOption func(*groupSettings) error

func (o groupOption) applyToFleet(s *fleetSettings) error { return o(&s.group) }
func (o groupOption) applyToGroup(s *groupSettings) error { return o(s) }
func (groupOption) together() string                      { return "" }

// sharedOption is an option that all calls of a flight have together.
type sharedOption struct {
	groupOption
	name string
}

func (o sharedOption) together() string { return o.name }

// WithNamespace sets the prefix of every key and channel in Redis; the default
// is "fleetcall". Fleets that share a Redis and a namespace are one fleet.
func WithNamespace(namespace string) Option {
	return fleetOption(func(s *fleetSettings) error {
		if namespace == "" || strings.ContainsAny(namespace, "{}") {
			return fmt.Errorf("fleetcall: WithNamespace: %q must not be empty or contain braces", namespace)
		}
		s.namespace = namespace
		return nil
	})
}

// WithRedisTimeout sets how long one command may take before the fleet goes on
// without Redis; the default is 250 ms. It must not be over the lease TTL. To hand over
// an outcome, or to fetch one, may take 1 ms more for each 16 KiB of it.
// It holds whatever the client's own timeouts are.
func WithRedisTimeout(timeout time.Duration) Option {
	return fleetOption(func(s *fleetSettings) error {
		s.redisTimeout = timeout
		return positive("WithRedisTimeout", timeout)
	})
}

// WithLogger sets where takeovers, lost leases, results that cannot be shared and
// changes of a Redis server's health are logged; the default is slog.Default(). To log nothing, give
// it a logger of slog.DiscardHandler.
func WithLogger(log *slog.Logger) Option {
	return fleetOption(func(s *fleetSettings) error {
		if log == nil {
			return errors.New("fleetcall: WithLogger: the logger is nil; to log nothing, give slog.New(slog.DiscardHandler)")
		}
		s.log = log
		return nil
	})
}

// WithReplicaID sets the name of this process in leases and logs; the default
// is the host's name and a random suffix.
func WithReplicaID(id string) Option {
	return fleetOption(func(s *fleetSettings) error {
		if id == "" || len(id) > 255 {
			return fmt.Errorf("fleetcall: WithReplicaID: the id has %d bytes, not 1 to 255", len(id))
		}
		s.replicaID = id
		return nil
	})
}

// WithHooks adds hooks that are told what the fleet does; by default there is none.
// Each is told in the order in which they were added. WithHooks refuses one that
// implements none of the Hook interfaces of this package.
func WithHooks(hooks ...Hook) Option {
	return fleetOption(func(s *fleetSettings) error {
		for i, hook := range hooks {
			if err := s.hooks.add(hook); err != nil {
				return fmt.Errorf("fleetcall: WithHooks: hook %d %w", i+1, err)
			}
		}
		return nil
	})
}

// WithLeaseTTL sets how long a leader's lease lives without renewal, and so
// how long a dead leader delays its followers; the default is 3 s. It is
// renewed every third of it.
func WithLeaseTTL(ttl time.Duration) GroupOption {
	return shared("WithLeaseTTL", func(s *groupSettings) error {
		s.leaseTTL = ttl
		return positive("WithLeaseTTL", ttl)
	})
}

// WithFlightTimeout sets how long a function may run and a caller wait before
// it gets coalesce.ErrFlightTimeout; the default is 30 s. With may change it: the
// function has the time of the caller that leads its flight, and each caller waits
// for its own time.
func WithFlightTimeout(timeout time.Duration) GroupOption {
	return groupOption(func(s *groupSettings) error {
		s.flightTimeout = timeout
		return positive("WithFlightTimeout", timeout)
	})
}

// WithMaxAge lets callers take a value that finished at most age before they
// came; the default, 0, gives them flights only that still ran. Errors are
// never kept. With may change it: a value is kept for the age of the caller that led
// its flight, and taken by callers whose own age allows it.
func WithMaxAge(age time.Duration) GroupOption {
	return groupOption(func(s *groupSettings) error {
		if age < 0 || age > 0 && age < time.Millisecond {
			return fmt.Errorf("fleetcall: WithMaxAge: %v must be 0 or at least 1ms", age)
		}
		s.maxAge = age
		return nil
	})
}

// WithFailClosed makes callers get coalesce.ErrUnavailable when Redis cannot
// be used, instead of one execution per replica. A caller that finds its own replica
// running the function already, for a caller that fails open, still takes that result.
// With may change it.
func WithFailClosed() GroupOption {
	return groupOption(func(s *groupSettings) error {
		s.failClosed = true
		return nil
	})
}

// WithFailOpen takes WithFailClosed back: when Redis cannot be used, each replica
// runs its own function. It is the default. With may change it.
func WithFailOpen() GroupOption {
	return groupOption(func(s *groupSettings) error {
		s.failClosed = false
		return nil
	})
}

// WithAdaptive has Redis asked only for keys that several replicas call for at the same time.
// A flight of any other key runs its function at once and sends Redis nothing; its callers wait
// for nothing else. By default every flight asks. DoMany calls its function once for all keys,
// when those that are shared have been answered.
//
// Which keys are shared is learned from what becomes of flights that ask, from how often a
// key is called here and how long its functions take, from calls that wait for each other
// here, and from other replicas, which tell when they find a key hot. Until a key is known to
// be shared, each replica may run its function, one at a time: a cold key that many call at
// once has up to one execution for each replica, and then one for all. A key whose functions
// are over before Redis could answer is not asked for. Calls with a MaxAge always ask.
//
// All replicas must have the same setting: a Forget on a replica without it is not heard by
// flights that have not asked Redis.
func WithAdaptive() GroupOption {
	return shared("WithAdaptive", func(s *groupSettings) error {
		s.adaptive = true
		return nil
	})
}

// WithMaxTakeovers sets how many further replicas may lead a key after one
// died leading it, before callers get coalesce.ErrPoisoned; the default is 2.
func WithMaxTakeovers(n int) GroupOption {
	return shared("WithMaxTakeovers", func(s *groupSettings) error {
		if n < 0 {
			return fmt.Errorf("fleetcall: WithMaxTakeovers: %d must not be negative", n)
		}
		s.maxTakeovers = n
		return nil
	})
}

// WithCodec sets how results travel; the default is coalesce.Raw for []byte
// and coalesce.JSON for all else. It is for the Groups of one type of results, so
// that Open refuses it.
func WithCodec[V any](codec coalesce.Codec[V]) GroupOption {
	return codecOption{shared("WithCodec", func(s *groupSettings) error {
		if v := reflect.ValueOf(codec); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
			return errors.New("fleetcall: WithCodec: the codec is nil; leave the option out for the default")
		}
		if n := len(codec.Name()); n == 0 || n > 255 {
			return fmt.Errorf("fleetcall: WithCodec: the codec's name has %d bytes, not 1 to 255", n)
		}
		s.codec = codec
		return nil
	})}
}

type codecOption struct{ sharedOption }

func (codecOption) applyToFleet(*fleetSettings) error {
	return errors.New("fleetcall: Open: WithCodec is for the results of one Group; give it to NewGroup")
}

// AllowLossy accepts results that their codec changes on the way, so that replicas
// other than the leader's get something else than the leader's callers.
func AllowLossy() GroupOption {
	return shared("AllowLossy", func(s *groupSettings) error {
		s.allowLossy = true
		return nil
	})
}

// WithInlineLimit sets up to how many bytes an encoded result travels in the
// message itself; the default is 64 KiB. A larger one is stored, if somebody wants it, and
// fetched, in pieces between which Redis answers others. Up to the limit it is not: a limit
// of megabytes makes Redis stand still for tens of milliseconds.
func WithInlineLimit(bytes int) GroupOption {
	return shared("WithInlineLimit", func(s *groupSettings) error {
		if bytes < 0 {
			return fmt.Errorf("fleetcall: WithInlineLimit: %d must not be negative", bytes)
		}
		s.inlineLimit = bytes
		return nil
	})
}

// WithPayloadLimit sets up to how many bytes an encoded result travels at all;
// the followers of a larger one run their own function. The default is 8 MiB.
func WithPayloadLimit(bytes int) GroupOption {
	return shared("WithPayloadLimit", func(s *groupSettings) error {
		if bytes <= 0 {
			return fmt.Errorf("fleetcall: WithPayloadLimit: %d must be positive", bytes)
		}
		s.payloadLimit = bytes
		return nil
	})
}

func shared(name string, set func(*groupSettings) error) sharedOption {
	return sharedOption{set, name}
}

// positive refuses what Redis, which counts in milliseconds, would take for 0.
func positive(option string, d time.Duration) error {
	if d < time.Millisecond {
		return fmt.Errorf("fleetcall: %s: %v must be at least 1ms", option, d)
	}
	return nil
}
