package coalescegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

// clientFleet returns a client of one server for each group, as replicas of a program that
// calls it have.
func clientFleet(t *testing.T, s *service, groups []*group) (clients []pb.TestServiceClient, conns []*grpc.ClientConn) {
	t.Helper()
	address := listen(t, s)
	for _, g := range groups {
		client, conn := dial(t, address, clientInterceptor(t, g))
		clients, conns = append(clients, client), append(conns, conn)
	}
	return clients, conns
}

func TestClientsOfAllReplicasMakeOneCall(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("price-list", "spring"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("rows", "1"))
		return &pb.SimpleResponse{Username: fmt.Sprint(in.ResponseSize)}, open.wait(ctx)
	})
	groups := newGroups(t, redisrig.Start(t), 2)
	clients, _ := clientFleet(t, s, groups)
	answers := crowd(t.Context(), clients, 10, lamp)
	gathered(t, groups, 10)
	close(open)
	roles := map[string]int{}
	for range cap(answers) {
		a := <-answers
		if a.err != nil || a.Username != "7" {
			t.Errorf("got %v, %v", a.SimpleResponse, a.err)
		}
		if !slices.Equal(a.header["price-list"], []string{"spring"}) || !slices.Equal(a.trailer["rows"], []string{"1"}) {
			t.Errorf("%s got header %v, trailer %v", a.role(), a.header, a.trailer)
		}
		a.header["price-list"][0] = "mine" // each has its own
		roles[a.role()]++
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls reached the server, want 1", len(s.started))
	}
	if count(roles, coalesce.Leader) != 1 || count(roles, coalesce.RemoteFollower) != 1 || count(roles, coalesce.LocalFollower) != 18 {
		t.Errorf("roles: %v", roles)
	}
}

func TestClientsShareAStatus(t *testing.T) {
	want, err := status.New(codes.FailedPrecondition, "closed").WithDetails(lamp)
	if err != nil {
		t.Fatal(err)
	}
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("opens", "9:00"))
		_ = open.wait(ctx)
		return nil, want.Err()
	})
	groups := newGroups(t, redisrig.Start(t), 2)
	clients, _ := clientFleet(t, s, groups)
	answers := crowd(t.Context(), clients, 2, lamp)
	gathered(t, groups, 2)
	close(open)
	for range cap(answers) {
		a := <-answers
		got, ok := status.FromError(a.err)
		if !ok || got.Code() != want.Code() || got.Message() != want.Message() || len(got.Details()) != 1 {
			t.Errorf("%s got %v, details %v", a.role(), a.err, got.Details())
		}
		if !slices.Equal(a.trailer["opens"], []string{"9:00"}) {
			t.Errorf("%s got the trailer %v", a.role(), a.trailer)
		}
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls reached the server, want 1", len(s.started))
	}
}

// A caller may use its messages again as soon as it is back, though its call goes on for
// others: the race detector watches.
func TestACallerThatLeavesKeepsItsMessages(t *testing.T) {
	open := make(gate)
	got := make(chan int32, 1)
	s := newService(func(ctx context.Context, in *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		got <- in.ResponseSize
		return &pb.SimpleResponse{Username: "Lamp"}, open.wait(ctx)
	})
	group := new(replies)
	client, _ := dial(t, listen(t, s), clientInterceptor(t, local.Tier(group)))
	ctx, leave := context.WithCancel(t.Context())
	type left struct {
		header metadata.MD
		err    error
	}
	first := make(chan left, 1)
	go func() {
		in, header := &pb.SimpleRequest{ResponseSize: 7}, metadata.MD{}
		_, err := client.UnaryCall(ctx, in, grpc.Header(&header))
		in.ResponseSize = 8
		header = metadata.MD{"mine": nil}
		first <- left{header, err}
	}()
	<-s.started
	others := crowd(t.Context(), []pb.TestServiceClient{client}, 1, lamp)
	rig.Wait(t, "another to wait", func() error {
		if group.Stats().Followers != 1 {
			return errors.New("it does not")
		}
		return nil
	})
	leave()
	if a := <-first; status.Code(a.err) != codes.Canceled || len(a.header) != 1 {
		t.Errorf("the caller that left got %v, %v", a.header, a.err)
	}
	close(open)
	if a := <-others; a.err != nil || a.Username != "Lamp" || <-got != 7 {
		t.Errorf("the other got %v, %v", a.SimpleResponse, a.err)
	}
}

func TestOnFinishIsCalledOnceForEachCaller(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = open.wait(ctx)
		return nil, status.Error(codes.NotFound, "none")
	})
	group := new(replies)
	client, _ := dial(t, listen(t, s), clientInterceptor(t, local.Tier(group)))
	var finished [3]atomic.Int64
	answers := make(chan answer, len(finished))
	for i := range finished {
		go func() {
			answers <- send(t.Context(), client, lamp, grpc.OnFinish(func(err error) {
				if status.Code(err) == codes.NotFound {
					finished[i].Add(1)
				}
			}))
		}()
	}
	rig.Wait(t, "all to wait", func() error {
		if waiting := group.Stats().Waiting; waiting != 3 {
			return fmt.Errorf("%d wait", waiting)
		}
		return nil
	})
	close(open)
	for range finished {
		<-answers
	}
	for i := range finished {
		if n := finished[i].Load(); n != 1 {
			t.Errorf("caller %d was told %d times", i, n)
		}
	}
}

func TestCallsThatWantTheirOwnConnectionOrCodecRunAlone(t *testing.T) {
	s := newService(func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "Lamp"}, nil
	})
	client, _ := dial(t, listen(t, s), clientInterceptor(t, local.Tier(new(replies))))
	var p peer.Peer
	for name, c := range map[string]struct {
		opt  grpc.CallOption
		role string
	}{
		"its peer":             {grpc.Peer(&p), coalescegrpc.Alone},
		"another subtype":      {grpc.CallContentSubtype("proto"), coalescegrpc.Alone},
		"only its compression": {grpc.UseCompressor(gzip.Name), "leader"},
	} {
		if a := send(t.Context(), client, lamp, c.opt); a.err != nil || a.Username != "Lamp" || a.role() != c.role {
			t.Errorf("%s: %s got %v, %v", name, a.role(), a.SimpleResponse, a.err)
		}
	}
	if p.Addr == nil {
		t.Error("the peer was not told")
	}
}

// A process that ends closes its connections, and with them the call that others wait for.
func TestAnotherReplicaCallsWhenTheFirstOneClosesItsConnection(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "Lamp"}, open.wait(ctx)
	})
	groups := newGroups(t, redisrig.Start(t), 2)
	clients, conns := clientFleet(t, s, groups)
	leader := crowd(t.Context(), clients[:1], 1, lamp)
	<-s.started
	follower := crowd(t.Context(), clients[1:], 1, lamp)
	gathered(t, groups, 1)
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	if a := <-leader; status.Code(a.err) != codes.Canceled {
		t.Errorf("the first got %v", a.err)
	}
	<-s.started
	close(open)
	if a := <-follower; a.err != nil || a.Username != "Lamp" || a.role() != "leader" {
		t.Errorf("the other, %s, got %v, %v", a.role(), a.SimpleResponse, a.err)
	}
}

func TestOtherMethodsOfAClientPass(t *testing.T) {
	s := newService(nil)
	group := new(replies)
	client, _ := dial(t, listen(t, s), clientInterceptor(t, local.Tier(group)))
	for range 2 {
		if _, err := client.EmptyCall(t.Context(), &pb.Empty{}); err != nil {
			t.Error(err)
		}
	}
	if s.empty.Load() != 2 || group.Stats().Requests != 0 {
		t.Errorf("%d calls came to the service, %d to the Group", s.empty.Load(), group.Stats().Requests)
	}
}

func TestAnInterceptorIsRefusedThatWouldMergeNothing(t *testing.T) {
	g := local.Tier(new(replies))
	for want, c := range map[string]struct {
		group   coalescegrpc.Group
		methods []string
	}{
		"the Group is nil":   {nil, unary},
		"no method is named": {g, nil},
		`method "/grpc.testing.TestService/Unary": service grpc.testing.TestService has EmptyCall, UnaryCall, CacheableUnaryCall, UnimplementedCall`: {g, []string{"/grpc.testing.TestService/Unary"}},
		`method "UnaryCall": it has to be written /package.Service/Method`:                                                                           {g, []string{"UnaryCall"}},
		`method "grpc.testing.TestService/UnaryCall": it has to be written`:                                                                          {g, []string{"grpc.testing.TestService/UnaryCall"}},
		"there is no service shop.Products in this program":                                                                                          {g, []string{"/shop.Products/Get"}},
		"there is no service grpc.testing.SimpleRequest in this program":                                                                             {g, []string{"/grpc.testing.SimpleRequest/Get"}},
		"it streams": {g, []string{unary[0], pb.TestService_StreamingOutputCall_FullMethodName}},
	} {
		_, server := coalescegrpc.UnaryServerInterceptor(c.group, c.methods)
		_, client := coalescegrpc.UnaryClientInterceptor(c.group, c.methods)
		checkRefusal(t, "fleetcall: UnaryServerInterceptor: ", want, server)
		checkRefusal(t, "fleetcall: UnaryClientInterceptor: ", want, client)
	}
}

func checkRefusal(t *testing.T, doing, want string, err error) {
	t.Helper()
	if err == nil || !strings.HasPrefix(err.Error(), doing) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s%s", err, doing, want)
	}
}
