package redislink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/internal/protocol"
)

// ErrServerDown is the error of a command that was not sent, because its server is down.
// It wraps coalesce.ErrUnavailable.
var ErrServerDown = fmt.Errorf("%w: its server is down", coalesce.ErrUnavailable)

// ErrUnconfirmed is the error of a follower that gives up waiting for its subscription.
// It wraps coalesce.ErrUnavailable.
var ErrUnconfirmed = fmt.Errorf("%w: a subscription is not confirmed", coalesce.ErrUnavailable)

// unanswered is the error of a command that was on its way when its server went down.
type unanswered struct{ why error }

func (u unanswered) Error() string { return "on its way when the server went down: " + u.why.Error() }

func (u unanswered) Unwrap() error { return u.why }

// FailureKinds returns all kinds of failure that Redis, or the way to it, can have.
// DownKind is not one of them.
func FailureKinds() []string {
	return []string{kindTimeout, "connection", "subscription", "pool", "oom", "readonly", "misconf", "noreplicas", "loading", "cluster", "auth", "maxclients", "reply"}
}

// DownKind is what FailureKind returns for ErrServerDown. It is no failure of
// Redis: nothing was sent.
const DownKind = "down"

const kindTimeout = "timeout"

// FailureKind returns the kind of an error of a Link or of a Redis client. An error
// that it does not know is of the kind "connection".
func FailureKind(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrServerDown):
		return DownKind
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
	case redis.HasErrorPrefix(err, "MISCONF"):
		return "misconf"
	case redis.HasErrorPrefix(err, "NOREPLICAS"):
		return "noreplicas"
	case redis.IsLoadingError(err):
		return "loading"
	case redis.IsClusterDownError(err), redis.IsMasterDownError(err), redis.IsTryAgainError(err):
		return "cluster"
	case redis.IsAuthError(err), redis.IsPermissionError(err):
		return "auth"
	case redis.IsMaxClientsError(err):
		return "maxclients"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return kindTimeout
	}
	if isReply(err) {
		return "reply"
	}
	return "connection"
}

// refused is what Redis answered to a command of a script.
type refused string

func (r refused) Error() string { return string(r) }

// RedisError makes refused a redis.Error.
func (refused) RedisError() {}

// ofScript returns the error of the command that a script called, as every version of Redis
// gives it from 7.0 on. Before, it stood at the end of another one, so that a Redis that is
// full could not be told from a script with a fault:
//
//	ERR Error running script (call to f_…): @user_script:112: @user_script: 112: -OOM command …
func ofScript(err error) error {
	if err == nil || !redis.HasErrorPrefix(err, "Error running script") {
		return err
	}
	if _, own, found := strings.Cut(err.Error(), ": -"); found {
		return refused(own)
	}
	return err
}

func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// NeverSent says whether the command of this error cannot have run: it was never sent,
// its connection was never made, or Redis refused it. A command for which it returns
// false may have run. So may, rarely, one that the client has tried again after it had
// lost a reply.
func NeverSent(err error) bool {
	if errors.As(err, new(unanswered)) {
		return false
	}
	return errors.Is(err, ErrServerDown) || errors.Is(err, redis.ErrPoolTimeout) || isReply(err) || isDial(err)
}

// OwnFault says whether the command of this error may have failed because of what it is,
// such as its size, at a server that is well.
func OwnFault(err error) bool {
	_, sign := signOf(err)
	return errors.As(err, new(unanswered)) || !errors.Is(err, ErrServerDown) && (sign == slowness || sign == suspicion)
}

// A sign is what the end of a command says of its server. The later ones say more.
type sign int

const (
	nothing   sign = iota
	slowness       // the client gave the command up
	suspicion      // the server may be in trouble, or the command: a probe tells
	refusal        // the server refuses all writes or all commands, or connections
)

// signOf says whether anything came from the server, and what that, or the failure, is
// a sign of. Where slots move, or one is not served, and where no connection of the
// client's is free, the server may be well.
func signOf(err error) (answered bool, s sign) {
	if err == nil {
		return true, nothing
	}
	answered = isReply(err)
	switch FailureKind(err) {
	case "oom", "readonly", "misconf", "noreplicas", "loading":
		return answered, refusal
	case "cluster":
		if redis.IsTryAgainError(err) || redis.HasErrorPrefix(err, "CLUSTERDOWN Hash slot not served") {
			return answered, nothing
		}
		return answered, refusal
	case "auth":
		if redis.IsPermissionError(err) { // it may be this key that is not permitted
			return answered, suspicion
		}
		return answered, refusal
	case kindTimeout:
		return answered, slowness
	case "pool":
		return answered, nothing
	}
	_, moved := redis.IsMovedError(err)
	_, asks := redis.IsAskError(err)
	switch {
	case moved, asks, errors.Is(err, redis.Nil), errors.Is(err, context.Canceled):
		return answered, nothing
	case isDial(err):
		return answered, refusal
	}
	return answered, suspicion
}
