package coalescegrpc

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fleetcall/fleetcall/coalesce"
)

// callError is an error of a call on its way to those who share it, and what they get of
// one from another replica. It has a status if the error has one.
type callError struct {
	err             error // nil in what has just arrived from another replica
	status          *status.Status
	header, trailer metadata.MD
	abandoned       bool // others must not have it, and call for themselves
}

func init() { coalesce.RegisterErrorType[*callError]("coalescegrpc.status") }

// newCallError returns err with the metadata that its call has set.
func newCallError(err error, header, trailer metadata.MD) *callError {
	e := &callError{err: err, header: header, trailer: trailer}
	if s, ok := status.FromError(err); ok {
		e.status = s
	}
	return e
}

// Error returns the message of the original.
func (e *callError) Error() string {
	switch {
	case e.err != nil:
		return e.err.Error()
	case e.status != nil:
		return e.status.Err().Error()
	}
	return "fleetcall: an error of a call"
}

// Unwrap returns the original, and context.Canceled for a call that was abandoned.
func (e *callError) Unwrap() []error {
	var errs []error
	if e.err != nil {
		errs = append(errs, e.err)
	}
	if e.abandoned {
		errs = append(errs, context.Canceled)
	}
	return errs
}

// GRPCStatus is what status.FromError looks for; nil is an error without a status.
func (e *callError) GRPCStatus() *status.Status { return e.status }

// MarshalJSON writes what other replicas get: the status and the metadata.
func (e *callError) MarshalJSON() ([]byte, error) {
	r := Reply{header: e.header, trailer: e.trailer}
	if e.status != nil {
		s := e.status.Proto()
		s.Message = strings.ToValidUTF8(s.Message, "\uFFFD") // a field of text has nothing else
		var err error
		if r.status, err = proto.Marshal(s); err != nil {
			return nil, err
		}
	}
	data, err := Codec().Marshal(&r)
	if err != nil {
		return nil, err
	}
	return json.Marshal(data)
}

// UnmarshalJSON reads what MarshalJSON has written.
func (e *callError) UnmarshalJSON(text []byte) error {
	var data []byte
	if err := json.Unmarshal(text, &data); err != nil {
		return err
	}
	r, err := Codec().Unmarshal(data)
	if err != nil {
		return err
	}
	*e = callError{header: r.header, trailer: r.trailer}
	if len(r.status) > 0 {
		var s spb.Status
		if err := proto.Unmarshal(r.status, &s); err != nil {
			return err
		}
		e.status = status.FromProto(&s)
	}
	return nil
}

// received returns an error of a Group as the interceptor's caller gets it, and the metadata
// of its call. The original is returned where it happened; elsewhere an error that has its
// status, and in which errors.Is and errors.As find what is registered.
func received(ctx context.Context, err error) (header, trailer metadata.MD, final error) {
	var of *callError
	if !errors.As(err, &of) {
		return nil, nil, groupError(ctx, err)
	}
	switch {
	case of.err != nil:
		err = of.err
	case of.status != nil:
		err = &callError{err: err, status: of.status}
	}
	return of.header, of.trailer, err
}

// groupError gives an error of the Group's own its status. Others are left as they are.
func groupError(ctx context.Context, err error) error {
	if ended := ctx.Err(); ended != nil && errors.Is(err, ended) {
		return status.FromContextError(ended).Err()
	}
	for _, known := range []struct {
		err  error
		code codes.Code
	}{
		{coalesce.ErrFlightTimeout, codes.DeadlineExceeded},
		{coalesce.ErrPoisoned, codes.Unavailable},
		{coalesce.ErrUnavailable, codes.Unavailable},
		{coalesce.ErrClosed, codes.Unavailable},
		{coalesce.ErrRemotePanic, codes.Internal},
		{coalesce.ErrGoexit, codes.Internal},
	} {
		if errors.Is(err, known.err) {
			return &callError{err: err, status: status.New(known.code, err.Error())}
		}
	}
	return err
}
