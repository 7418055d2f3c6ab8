package coalescegrpc

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// UnaryClientInterceptor returns an interceptor that merges the calls of these methods,
// which are given in full, as generated code has them in Service_Method_FullMethodName. All
// other calls pass. It refuses a method that streams, or that no service has which is linked
// into the program.
//
// Chain it first: the interceptors after it run once for all who share a call. The options of
// a call are those of the first caller, except grpc.Header, grpc.Trailer and grpc.OnFinish,
// which are each caller's own. A call with another codec, or with grpc.Peer, runs alone.
func UnaryClientInterceptor(group Group, methods []string, opts ...Option) (grpc.UnaryClientInterceptor, error) {
	i, err := newInterceptor(group, methods, opts)
	if err != nil {
		return nil, fmt.Errorf("fleetcall: UnaryClientInterceptor: %w", err)
	}
	return i.call, nil
}

// call is a grpc.UnaryClientInterceptor.
func (i *interceptor) call(ctx context.Context, name string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) (err error) {
	m := i.methods[name]
	if m == nil {
		return invoker(ctx, name, req, reply, cc, opts...)
	}
	options := optionsOf(opts)
	alone := func() error {
		err := invoker(ctx, name, req, reply, cc, opts...)
		options.setRole(Alone)
		return err
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	identity, mustBeAlone := i.settings.caller(ctx, md, options.credentials)
	request, isMessage := req.(proto.Message)
	target, takesMessage := reply.(proto.Message)
	if mustBeAlone || options.alone || !isMessage || !takesMessage {
		return alone()
	}
	data, err := deterministic.Marshal(request)
	if err != nil {
		return alone()
	}
	key := i.settings.key(subject{
		method: m, request: data, metadata: md, identity: identity, target: cc.CanonicalTarget(), authority: options.authority,
	})
	// The call goes on when its first caller has left, who may then use both messages
	// again: so it has its own.
	requestType, replyType := request.ProtoReflect().Type(), target.ProtoReflect().Type()
	shared, role, err := i.group.Do(ctx, key, func(ctx context.Context) (*Reply, error) {
		request := requestType.New().Interface()
		if err := (proto.UnmarshalOptions{AllowPartial: true}).Unmarshal(data, request); err != nil {
			return nil, status.Errorf(codes.Internal, "fleetcall: copying the request of a shared call: %v", err)
		}
		return invoke(ctx, name, request, replyType.New().Interface(), cc, invoker, options.shared)
	})
	if isClosed(err, role) {
		return alone()
	}
	var header, trailer metadata.MD
	if err != nil {
		header, trailer, err = received(ctx, err)
	} else {
		header, trailer = shared.header, shared.trailer
		if failed := proto.Unmarshal(shared.message, target); failed != nil {
			err = status.Errorf(codes.Internal, "fleetcall: reading the reply of a shared call: %v", failed)
		}
	}
	options.set(header, trailer)
	options.setRole(role.String())
	options.finish(err)
	return err
}

// invoke makes the call for all who share it.
func invoke(ctx context.Context, name string, request, reply proto.Message, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts []grpc.CallOption) (*Reply, error) {
	var header, trailer metadata.MD
	err := invoker(ctx, name, request, reply, cc, append(opts[:len(opts):len(opts)], grpc.Header(&header), grpc.Trailer(&trailer))...)
	if err != nil {
		failed := newCallError(err, header, trailer)
		// A process that ends closes its connections. That is no answer for the others.
		failed.abandoned = status.Code(err) == codes.Canceled && ctx.Err() == nil && cc.GetState() == connectivity.Shutdown
		return nil, failed
	}
	data, err := proto.Marshal(reply)
	if err != nil {
		return nil, newCallError(status.Errorf(codes.Internal, "fleetcall: the reply of %s cannot be sent on: %v", name, err), header, trailer)
	}
	return &Reply{message: data, header: header, trailer: trailer}, nil
}

// callOptions are the options of a call, by whose they are.
type callOptions struct {
	shared      []grpc.CallOption
	headers     []*metadata.MD
	trailers    []*metadata.MD
	onFinish    []func(error)
	authority   string
	credentials bool
	alone       bool
}

func optionsOf(opts []grpc.CallOption) *callOptions {
	o := new(callOptions)
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.HeaderCallOption:
			o.headers = append(o.headers, opt.HeaderAddr)
			continue
		case grpc.TrailerCallOption:
			o.trailers = append(o.trailers, opt.TrailerAddr)
			continue
		case grpc.OnFinishCallOption:
			o.onFinish = append(o.onFinish, opt.OnFinish)
			continue
		case grpc.AuthorityOverrideCallOption:
			o.authority = opt.Authority
		case grpc.PerRPCCredsCallOption:
			o.credentials = true
		case grpc.PeerCallOption, grpc.ContentSubtypeCallOption, grpc.ForceCodecCallOption, grpc.ForceCodecV2CallOption, grpc.CustomCodecCallOption:
			o.alone = true
		}
		o.shared = append(o.shared, opt)
	}
	return o
}

// set gives the caller its own copies of the metadata.
func (o *callOptions) set(header, trailer metadata.MD) {
	for _, md := range o.headers {
		*md = copyOf(header)
	}
	for _, md := range o.trailers {
		*md = copyOf(trailer)
	}
}

func (o *callOptions) setRole(role string) {
	for _, md := range o.headers {
		if *md == nil {
			*md = metadata.MD{}
		}
		md.Set(RoleKey, role)
	}
}

func (o *callOptions) finish(err error) {
	for _, f := range o.onFinish {
		f(err)
	}
}
