package httpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/fleetcall/fleetcall/coalesce"
)

// What may be wrong with an upstream. They are the same on every replica that shares the
// failure.
var (
	// ErrUnreachable is of an upstream that takes no connection.
	ErrUnreachable = errors.New("fleetcall: the upstream takes no connection")
	// ErrTimeout is of an upstream that sent no answer in time.
	ErrTimeout = errors.New("fleetcall: the upstream did not answer in time")
	// ErrBroken is of a connection that ended before the header of an answer.
	ErrBroken = errors.New("fleetcall: the upstream ended the connection without an answer")
	// ErrGarbage is of an answer that is not HTTP.
	ErrGarbage = errors.New("fleetcall: the upstream's answer is not HTTP")
)

func init() {
	coalesce.RegisterError("fleetcall/httpproxy.unreachable", ErrUnreachable)
	coalesce.RegisterError("fleetcall/httpproxy.timeout", ErrTimeout)
	coalesce.RegisterError("fleetcall/httpproxy.broken", ErrBroken)
	coalesce.RegisterError("fleetcall/httpproxy.garbage", ErrGarbage)
}

// The kinds of failures, for counts.
const (
	kindUnreachable = "unreachable"
	kindTimeout     = "timeout"
	kindBroken      = "broken"
	kindGarbage     = "garbage"
	kindCut         = "cut" // amid the body
)

// Failures returns the kinds of failures that Counts is told.
func Failures() []string {
	return []string{kindUnreachable, kindTimeout, kindBroken, kindGarbage, kindCut}
}

// failed returns an error of the connection to the upstream as one that says which of the
// above it is, after its kind in a word, for counts. The kind is empty when the upstream has
// not failed, because the request ended for a reason of its own.
func failed(ctx context.Context, err error) (kind string, wrapped error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return "", err
	}
	switch {
	case isConnecting(err):
		return kindUnreachable, fmt.Errorf("%w: %w", ErrUnreachable, err)
	case isTimeout(err):
		return kindTimeout, fmt.Errorf("%w: %w", ErrTimeout, err)
	case isEnd(err):
		return kindBroken, fmt.Errorf("%w: %w", ErrBroken, err)
	}
	return kindGarbage, fmt.Errorf("%w: %w", ErrGarbage, err)
}

// isConnecting says whether there was no connection yet: none was taken, or TLS failed.
func isConnecting(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && (op.Op == "dial" || op.Op == "remote error" || op.Op == "local error") {
		return true
	}
	_, noCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	return noCertificate || noTLS || errors.Is(err, http.ErrSchemeMismatch)
}

func isTimeout(err error) bool {
	timeout, ok := errors.AsType[net.Error](err)
	return ok && timeout.Timeout() || errors.Is(err, context.DeadlineExceeded)
}

// isEnd says whether the connection ended. net/http does not export the error of a server
// that closed an idle connection just as the request was sent.
func isEnd(err error) bool {
	_, op := errors.AsType[*net.OpError](err)
	return op || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		strings.Contains(err.Error(), "server closed idle connection")
}
