package coalescegrpc

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fleetcall/fleetcall/coalesce"
)

// RoleKey is the key of the header metadata that interceptors add to every answer of a
// method that was named. Its value is a coalesce.Role, or Alone.
const RoleKey = "x-coalesce-role"

// Alone is the role of a call that was not merged with others.
const Alone = "alone"

// interceptor is what servers' and clients' have in common.
type interceptor struct {
	group    Group
	methods  map[string]*method
	settings settings
}

func newInterceptor(group Group, methods []string, opts []Option) (*interceptor, error) {
	if group == nil {
		return nil, errors.New("the Group is nil")
	}
	known, err := methodsOf(methods)
	if err != nil {
		return nil, err
	}
	return &interceptor{group, known, newSettings(opts)}, nil
}

// UnaryServerInterceptor returns an interceptor that merges the calls of these methods,
// which are given in full, as generated code has them in Service_Method_FullMethodName. All
// other calls pass. It refuses a method that streams, or that no service has which is linked
// into the program.
//
// Chain it last: the interceptors before it run for each caller, those after it once for all
// who share a call. What the handler sets of metadata reaches every caller, and all at once
// with the answer. grpc.SetSendCompressor is an error in such a handler.
//
// A server whose fleet is to end stops first: call GracefulStop, and then the Close of the
// fleet.
func UnaryServerInterceptor(group Group, methods []string, opts ...Option) (grpc.UnaryServerInterceptor, error) {
	i, err := newInterceptor(group, methods, opts)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: UnaryServerInterceptor: %w", err)
	}
	return i.serve, nil
}

// serve is a grpc.UnaryServerInterceptor.
func (i *interceptor) serve(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	m := i.methods[info.FullMethod]
	if m == nil {
		return handler(ctx, req)
	}
	alone := func() (any, error) {
		answer(ctx, nil, nil, Alone)
		return handler(ctx, req)
	}
	md, _ := metadata.FromIncomingContext(ctx)
	identity, mustBeAlone := i.settings.caller(ctx, md, provenPeer(ctx))
	request, ok := req.(proto.Message)
	if mustBeAlone || !ok {
		return alone()
	}
	data, err := deterministic.Marshal(request)
	if err != nil {
		return alone()
	}
	key := i.settings.key(subject{method: m, request: data, metadata: md, identity: identity})

	var own any // what the handler returned, if it was this caller's
	reply, role, err := i.group.Do(ctx, key, func(ctx context.Context) (*Reply, error) {
		resp, reply, err := handle(ctx, req, info.FullMethod, handler)
		own = resp
		return reply, err
	})
	switch {
	case isClosed(err, role):
		return alone()
	case err != nil:
		header, trailer, err := received(ctx, err)
		answer(ctx, header, trailer, role.String())
		return nil, err
	}
	answer(ctx, reply.header, reply.trailer, role.String())
	if role == coalesce.Leader || role == coalesce.Fallback {
		return own, nil
	}
	message := m.replyType.New().Interface()
	if err := proto.Unmarshal(reply.message, message); err != nil {
		return nil, status.Errorf(codes.Internal, "fleetcall: reading the reply of a shared call: %v", err)
	}
	return message, nil
}

// handle runs the handler for all who share the call.
func handle(ctx context.Context, req any, method string, handler grpc.UnaryHandler) (any, *Reply, error) {
	s := &stream{method: method}
	resp, err := handler(grpc.NewContextWithServerTransportStream(ctx, s), req)
	header, trailer := s.end()
	if err != nil {
		return nil, nil, newCallError(err, header, trailer)
	}
	message, ok := resp.(proto.Message)
	if !ok {
		return nil, nil, status.Errorf(codes.Internal, "fleetcall: the handler of %s returned a %T, and no message", method, resp)
	}
	data, err := proto.Marshal(message)
	if err != nil {
		return nil, nil, newCallError(status.Errorf(codes.Internal, "fleetcall: the reply of %s cannot be sent: %v", method, err), header, trailer)
	}
	return resp, &Reply{message: data, header: header, trailer: trailer}, nil
}

// isClosed says whether the Group has refused the call because its fleet is closed. One that
// waited, or whose function ran, when Close gave up has a role.
func isClosed(err error, role coalesce.Role) bool {
	return role == 0 && errors.Is(err, coalesce.ErrClosed)
}

// answer sets the metadata of a call's own answer. It cannot when that has been sent, or
// when the caller has left.
func answer(ctx context.Context, header, trailer metadata.MD, role string) {
	_ = grpc.SetHeader(ctx, metadata.Join(header, metadata.Pairs(RoleKey, role)))
	_ = grpc.SetTrailer(ctx, trailer)
}
