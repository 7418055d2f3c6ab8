package coalescegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// calm is a time that no stall of a busy machine reaches.
const calm = time.Minute

// onItsWay is longer than a reply takes on its way: by what a leader knows of Redis' clock,
// a function that ends sooner after a follower's join may have ended before it.
const onItsWay = 100 * time.Millisecond

// unary are the methods whose calls are merged.
var unary = []string{pb.TestService_UnaryCall_FullMethodName}

// service answers UnaryCall as the test says, and EmptyCall at once. Its calls tell when
// they have begun.
type service struct {
	pb.UnimplementedTestServiceServer
	started chan context.Context
	unary   func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)
	empty   atomic.Int64
}

func newService(unary func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error)) *service {
	return &service{started: make(chan context.Context, 1000), unary: unary}
}

func (s *service) UnaryCall(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	s.started <- ctx
	return s.unary(ctx, in)
}

func (s *service) EmptyCall(context.Context, *pb.Empty) (*pb.Empty, error) {
	s.empty.Add(1)
	return &pb.Empty{}, nil
}

// gate holds calls until it is opened, or their context ends.
type gate chan struct{}

func (g gate) wait(ctx context.Context) error {
	select {
	case <-g:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// group is a tier of one process, whose waiting callers can be counted.
type group struct {
	*distributed.Group[*coalescegrpc.Reply]
	fleet     *distributed.Fleet
	following *followers
}

// followers counts the flights that follow one of another replica.
type followers struct{ atomic.Int64 }

func (f *followers) Followed(context.Context, distributed.Followed) { f.Add(1) }

// newGroups returns a Group for each of n replicas.
func newGroups(t *testing.T, server *redisrig.Server, n int) []*group {
	t.Helper()
	following := new(followers)
	var all []*group
	for range n {
		client := redis.NewClient(&redis.Options{
			Addr: server.Addr, ContextTimeoutEnabled: true, MaxRetries: -1, DialerRetries: 1,
			DialTimeout: calm, ReadTimeout: calm, WriteTimeout: calm, PoolTimeout: calm,
		})
		fleet, err := distributed.Open(client, distributed.WithHooks(following), distributed.WithRedisTimeout(calm/6), distributed.WithLeaseTTL(calm/6))
		if err != nil {
			t.Fatal(err)
		}
		calls, err := distributed.NewGroup[*coalescegrpc.Reply](fleet, "calls", distributed.WithCodec(coalescegrpc.Codec()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(fleet.Close(context.Background()), client.Close()); err != nil {
				t.Error(err)
			}
		})
		all = append(all, &group{calls, fleet, following})
	}
	return all
}

// gathered waits until n callers wait in each group for the one call that runs.
func gathered(t *testing.T, groups []*group, n int) {
	t.Helper()
	rig.Wait(t, "all calls to share one", func() error {
		for _, g := range groups {
			if waiting := g.Stats().Local.Waiting; waiting != int64(n) {
				return fmt.Errorf("%d of %d wait", waiting, n)
			}
		}
		if follow := groups[0].following.Load(); follow != int64(len(groups)-1) {
			return fmt.Errorf("%d replicas follow", follow)
		}
		return nil
	})
	time.Sleep(onItsWay)
}

// listen starts a server, and returns its address.
func listen(t *testing.T, s pb.TestServiceServer, opts ...grpc.ServerOption) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(opts...)
	pb.RegisterTestServiceServer(server, s)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.GracefulStop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// dial returns a client of a server.
func dial(t *testing.T, address string, opts ...grpc.DialOption) (pb.TestServiceClient, *grpc.ClientConn) {
	t.Helper()
	opts = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, opts...)
	conn, err := grpc.NewClient(address, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // a test may have closed it
	return pb.NewTestServiceClient(conn), conn
}

// serverFleet starts a replica of the service for each group, and returns a client of each.
func serverFleet(t *testing.T, s *service, groups []*group, before grpc.UnaryServerInterceptor, opts ...coalescegrpc.Option) []pb.TestServiceClient {
	t.Helper()
	var clients []pb.TestServiceClient
	for _, g := range groups {
		client, _ := dial(t, listen(t, s, grpc.ChainUnaryInterceptor(before, serverInterceptor(t, g, opts...))))
		clients = append(clients, client)
	}
	return clients
}

// nothing is an interceptor that does nothing.
func nothing(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(ctx, req)
}

func serverInterceptor(t *testing.T, g coalescegrpc.Group, opts ...coalescegrpc.Option) grpc.UnaryServerInterceptor {
	t.Helper()
	merge, err := coalescegrpc.UnaryServerInterceptor(g, unary, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return merge
}

func clientInterceptor(t *testing.T, g coalescegrpc.Group, opts ...coalescegrpc.Option) grpc.DialOption {
	t.Helper()
	merge, err := coalescegrpc.UnaryClientInterceptor(g, unary, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return grpc.WithChainUnaryInterceptor(merge)
}

// answer is what a caller got.
type answer struct {
	*pb.SimpleResponse
	header, trailer metadata.MD
	err             error
}

func (a answer) role() string {
	if roles := a.header[coalescegrpc.RoleKey]; len(roles) == 1 {
		return roles[0]
	}
	return fmt.Sprint(a.header[coalescegrpc.RoleKey])
}

func send(ctx context.Context, client pb.TestServiceClient, in *pb.SimpleRequest, opts ...grpc.CallOption) answer {
	var a answer
	opts = append(opts, grpc.Header(&a.header), grpc.Trailer(&a.trailer))
	a.SimpleResponse, a.err = client.UnaryCall(ctx, in, opts...)
	return a
}

// crowd sends n calls of each client, and returns their answers as they come.
func crowd(ctx context.Context, clients []pb.TestServiceClient, n int, in *pb.SimpleRequest) chan answer {
	answers := make(chan answer, n*len(clients))
	for _, client := range clients {
		for range n {
			go func() { answers <- send(ctx, client, in) }()
		}
	}
	return answers
}

// count returns how many answers have each role.
func count(roles map[string]int, role coalesce.Role) int { return roles[role.String()] }
