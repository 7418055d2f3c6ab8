// Package coalescegrpc brings fleetcall to programs that speak gRPC: interceptors that
// merge concurrent unary calls for the same thing into one, and a codec for Groups whose
// results are protobuf messages.
//
//	calls, err := distributed.NewGroup[*coalescegrpc.Reply](fleet, "calls", distributed.WithCodec(coalescegrpc.Codec()))
//	merge, err := coalescegrpc.UnaryServerInterceptor(calls, []string{shop.Products_Get_FullMethodName})
//	server := grpc.NewServer(grpc.ChainUnaryInterceptor(authenticate, merge))
//
// # What is merged
//
// Calls of the methods that were named, and of no other: only their author knows that
// they change nothing and answer everybody the same. Two calls are the same when these are:
//
//   - the full method,
//   - the request, as deterministic bytes. These differ between builds of a program now and
//     then, as the proto package says; then calls are not merged that could be,
//   - the descriptions of the request and of the reply, so that two versions of a service
//     in a rolling upgrade share among themselves alone,
//   - the metadata that WithMetadata names, and the caller that WithIdentity tells,
//   - for clients, the target of the connection, and its authority if grpc.CallAuthority
//     gives one. Connections that differ in grpc.WithAuthority need Groups of their own.
//
// All other metadata is the first caller's: that of tracing differs with every call.
//
// A call with credentials runs alone, unless they are part of what makes it the same, or
// WithPublic says that everybody gets the same answer. Known as credentials are metadata with
// a word such as authorization, cookie, token or key in its name (x-api-key, for one), to a
// server the certificates of clients, and to a client grpc.PerRPCCredentials in the options
// of a call. Metadata of other names, and the credentials of a client's connection, are not.
//
// # What the callers get
//
// Each its own message, and the header and trailer metadata of the one call, to which
// RoleKey is added. Status codes, messages and details are the same on every replica:
// status.FromError finds them, with the error's header and trailer metadata. An error that
// is no status keeps its identity as in every Group: see coalesce.RegisterError.
//
// Deadlines are each caller's own: who is late gets DeadlineExceeded, and the others go on
// waiting. The call itself ends with the Group's flight timeout, or when all its callers
// have left; its context has the values of the first caller and no deadline of any. A panic
// of the handler is a *coalesce.PanicError to all callers in its process, and Internal to
// those on other replicas.
//
// The status of what a Group says itself:
//
//   - coalesce.ErrFlightTimeout is DeadlineExceeded,
//   - coalesce.ErrPoisoned, coalesce.ErrUnavailable and coalesce.ErrClosed are Unavailable;
//     but a call that comes when the fleet is closed runs alone,
//   - coalesce.ErrRemotePanic and coalesce.ErrGoexit are Internal.
package coalescegrpc
