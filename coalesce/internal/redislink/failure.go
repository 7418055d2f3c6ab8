package redislink

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// ErrBreakerOpen is the error of a command that was not sent, because Redis failed a
// moment ago. It wraps coalesce.ErrUnavailable.
var ErrBreakerOpen = fmt.Errorf("%w: its breaker is open", coalesce.ErrUnavailable)

// ErrUnconfirmed is the error of a follower that gives up waiting for its subscription.
// It wraps coalesce.ErrUnavailable.
var ErrUnconfirmed = fmt.Errorf("%w: a subscription is not confirmed", coalesce.ErrUnavailable)

// errNotSent is the error of a command that waited for its turn for its whole time.
var errNotSent = fmt.Errorf("not sent: %w", context.DeadlineExceeded)

// FailureKinds returns all kinds of failure that Redis, or the way to it, can have.
// BreakerKind is not one of them.
func FailureKinds() []string {
	return []string{"timeout", "connection", "subscription", "pool", "oom", "readonly", "loading", "cluster", "auth", "maxclients", "reply"}
}

// BreakerKind is what FailureKind returns for ErrBreakerOpen. It is no failure of
// Redis: nothing was sent.
const BreakerKind = "breaker"

// FailureKind returns the kind of an error of a Link or of a Redis client. An error
// that it does not know is of the kind "connection".
func FailureKind(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrBreakerOpen):
		return BreakerKind
	case errors.Is(err, ErrUnconfirmed):
		return "subscription"
	case errors.Is(err, protocol.ErrReply):
		return "reply"
	case errors.Is(err, redis.ErrPoolTimeout):
		return "pool"
	case redis.IsOOMError(err):
		return "oom"
	case redis.IsReadOnlyError(err):
		return "readonly"
	case redis.IsLoadingError(err):
		return "loading"
	case redis.IsClusterDownError(err), redis.IsMasterDownError(err), redis.IsTryAgainError(err):
		return "cluster"
	case redis.IsAuthError(err), redis.IsPermissionError(err):
		return "auth"
	case redis.IsMaxClientsError(err):
		return "maxclients"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	}
	var reply redis.Error
	if errors.As(err, &reply) {
		return "reply"
	}
	return "connection"
}

// NeverSent says whether the command of this error cannot have run: it was never sent,
// its connection was never made, or Redis refused it. A command for which it returns
// false may have run.
func NeverSent(err error) bool {
	var reply redis.Error
	if errors.Is(err, ErrBreakerOpen) || errors.Is(err, errNotSent) || errors.Is(err, redis.ErrPoolTimeout) || errors.As(err, &reply) {
		return true
	}
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// serverFailure returns what the breaker is told of err. While a slot moves to another
// server of a Cluster, its keys cannot be used together; that is no failure of the
// server.
func serverFailure(err error) error {
	if redis.IsTryAgainError(err) {
		return nil
	}
	return err
}
