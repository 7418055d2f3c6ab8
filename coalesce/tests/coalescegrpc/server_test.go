package coalescegrpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fleetcall/fleetcall/coalesce"
	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/local"

	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

var lamp = &pb.SimpleRequest{ResponseSize: 7}

func TestCallsOfAllReplicasShareOneHandler(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		if err := open.wait(ctx); err != nil {
			return nil, err
		}
		name, _ := grpc.Method(ctx)
		_ = grpc.SetHeader(ctx, metadata.Pairs("price-list", "spring", "price-list", "sale"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("rows-bin", "\x00\xff"))
		if err := grpc.SendHeader(ctx, metadata.Pairs("method", name)); err != nil {
			return nil, err
		}
		if grpc.SetHeader(ctx, metadata.Pairs("late", "1")) == nil {
			return nil, errors.New("a header was set after it had been sent")
		}
		return &pb.SimpleResponse{Username: "Lamp"}, nil
	})
	groups := newGroups(t, redisrig.Start(t), 2)
	answers := crowd(t.Context(), serverFleet(t, s, groups, nothing), 10, lamp)
	gathered(t, groups, 10)
	close(open)
	roles := map[string]int{}
	for range cap(answers) {
		a := <-answers
		if a.err != nil || a.Username != "Lamp" {
			t.Errorf("got %v, %v", a.SimpleResponse, a.err)
		}
		if !slices.Equal(a.header["price-list"], []string{"spring", "sale"}) || !slices.Equal(a.header["method"], unary) || a.header["late"] != nil {
			t.Errorf("header %v", a.header)
		}
		if !slices.Equal(a.trailer["rows-bin"], []string{"\x00\xff"}) {
			t.Errorf("trailer %v", a.trailer)
		}
		roles[a.role()]++
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls were handled, want 1", len(s.started))
	}
	if count(roles, coalesce.Leader) != 1 || count(roles, coalesce.RemoteFollower) != 1 || count(roles, coalesce.LocalFollower) != 18 {
		t.Errorf("roles: %v", roles)
	}
}

func TestEveryCallerHasItsOwnMessage(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "for"}, open.wait(ctx)
	})
	// It writes into the reply of each caller, as one that strips fields would.
	address := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if err == nil {
			resp.(*pb.SimpleResponse).Username += " " + metadata.ValueFromIncomingContext(ctx, "name")[0]
		}
		return resp, err
	}
	groups := newGroups(t, redisrig.Start(t), 2)
	clients := serverFleet(t, s, groups, address)
	type named struct {
		name string
		answer
	}
	answers := make(chan named, 20)
	for i := range cap(answers) {
		name := fmt.Sprint(i)
		go func() {
			answers <- named{name, send(metadata.AppendToOutgoingContext(t.Context(), "name", name), clients[i%2], lamp)}
		}()
	}
	gathered(t, groups, 10)
	close(open)
	for range cap(answers) {
		if a := <-answers; a.err != nil || a.Username != "for "+a.name {
			t.Errorf("%s got %v, %v", a.name, a.SimpleResponse, a.err)
		}
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls were handled, want 1", len(s.started))
	}
}

func TestStatusCodesAndDetailsReachEveryCaller(t *testing.T) {
	want, err := status.New(codes.ResourceExhausted, "too many: 100 %, é").WithDetails(durationpb.New(90e9))
	if err != nil {
		t.Fatal(err)
	}
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("quota", "7"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("retry-after", "90"))
		_ = open.wait(ctx)
		return nil, want.Err()
	})
	// An interceptor before this one sees the status on every replica, as the client does.
	codesSeen := make(chan *status.Status, 100)
	look := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		codesSeen <- status.Convert(err)
		return resp, err
	}
	groups := newGroups(t, redisrig.Start(t), 2)
	answers := crowd(t.Context(), serverFleet(t, s, groups, look), 3, lamp)
	gathered(t, groups, 3)
	close(open)
	for range cap(answers) {
		a := <-answers
		for _, got := range []*status.Status{status.Convert(a.err), <-codesSeen} {
			details := got.Details()
			if got.Code() != want.Code() || got.Message() != want.Message() || len(details) != 1 {
				t.Errorf("%s got %v, details %v", a.role(), got, details)
				continue
			}
			if wait, ok := details[0].(*durationpb.Duration); !ok || wait.AsDuration() != 90e9 {
				t.Errorf("%s got the detail %v", a.role(), details[0])
			}
		}
		if !slices.Equal(a.header["quota"], []string{"7"}) || !slices.Equal(a.trailer["retry-after"], []string{"90"}) {
			t.Errorf("%s got header %v, trailer %v", a.role(), a.header, a.trailer)
		}
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls were handled, want 1", len(s.started))
	}
}

var errNoProduct = errors.New("no such product")

func init() { coalesce.RegisterError("coalescegrpc_test.errNoProduct", errNoProduct) }

func TestAnErrorThatIsNoStatusKeepsItsIdentity(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = open.wait(ctx)
		return nil, fmt.Errorf("product 7: %w", errNoProduct)
	})
	translate := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		resp, err := handler(ctx, req)
		if errors.Is(err, errNoProduct) {
			return nil, status.Error(codes.NotFound, err.Error())
		}
		return resp, err
	}
	groups := newGroups(t, redisrig.Start(t), 2)
	answers := crowd(t.Context(), serverFleet(t, s, groups, translate), 2, lamp)
	gathered(t, groups, 2)
	close(open)
	for range cap(answers) {
		if a := <-answers; status.Code(a.err) != codes.NotFound || status.Convert(a.err).Message() != "product 7: no such product" {
			t.Errorf("%s got %v", a.role(), a.err)
		}
	}
}

func TestAPanicReachesEveryCaller(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		_ = open.wait(ctx)
		panic("a nil map")
	})
	panics := make(chan any, 100)
	recoverer := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		defer func() {
			if value := recover(); value != nil {
				panics <- value
				err = status.Error(codes.Internal, "recovered")
			}
		}()
		return handler(ctx, req)
	}
	groups := newGroups(t, redisrig.Start(t), 2)
	answers := crowd(t.Context(), serverFleet(t, s, groups, recoverer), 2, lamp)
	gathered(t, groups, 2)
	close(open)
	recovered := 0
	for range cap(answers) {
		a := <-answers
		if status.Code(a.err) != codes.Internal {
			t.Errorf("got %v", a.err)
		}
		if status.Convert(a.err).Message() == "recovered" {
			recovered++
		}
	}
	if recovered != 2 || len(panics) != 2 {
		t.Fatalf("%d callers had a panic, and %d were recovered; want the 2 of the replica it happened on", len(panics), recovered)
	}
	for range 2 {
		if value, ok := (<-panics).(*coalesce.PanicError); !ok || value.Value != "a nil map" || len(value.Stack) == 0 {
			t.Errorf("recovered %v", value)
		}
	}
	if len(s.started) != 1 {
		t.Errorf("%d calls were handled, want 1", len(s.started))
	}
}

func TestOnlyMethodsThatWereNamedAreMerged(t *testing.T) {
	s := newService(nil)
	groups := newGroups(t, redisrig.Start(t), 1)
	client := serverFleet(t, s, groups, nothing)[0]
	for range 3 {
		var header metadata.MD
		if _, err := client.EmptyCall(t.Context(), &pb.Empty{}, grpc.Header(&header)); err != nil || header[coalescegrpc.RoleKey] != nil {
			t.Errorf("got %v, %v", header, err)
		}
	}
	if calls := groups[0].Stats().Local.Requests; calls != 0 || s.empty.Load() != 3 {
		t.Errorf("%d calls came to the Group, %d to the service", calls, s.empty.Load())
	}
}

func TestOneProcessNeedsNoRedis(t *testing.T) {
	for name, g := range map[string]coalescegrpc.Group{"local": local.Tier[*coalescegrpc.Reply](new(local.Group[string, *coalescegrpc.Reply])), "off": coalesce.Off[*coalescegrpc.Reply]{}} {
		s := newService(func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
			return &pb.SimpleResponse{Username: "Lamp"}, nil
		})
		client, _ := dial(t, listen(t, s, grpc.ChainUnaryInterceptor(serverInterceptor(t, g))))
		if a := send(t.Context(), client, lamp); a.err != nil || a.Username != "Lamp" || a.role() != "leader" {
			t.Errorf("%s: %s got %v, %v", name, a.role(), a.SimpleResponse, a.err)
		}
	}
}

func TestAServerWithoutRedisAnswers(t *testing.T) {
	s := newService(func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "Lamp"}, nil
	})
	redis := redisrig.Start(t)
	groups := newGroups(t, redis, 1)
	client := serverFleet(t, s, groups, nothing)[0]
	redis.Kill()
	if a := send(t.Context(), client, lamp); a.err != nil || a.Username != "Lamp" || a.role() != "fallback" {
		t.Errorf("%s got %v, %v", a.role(), a.SimpleResponse, a.err)
	}
}

func TestACallToAClosedFleetRunsAlone(t *testing.T) {
	s := newService(func(context.Context, *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "Lamp"}, nil
	})
	groups := newGroups(t, redisrig.Start(t), 1)
	client := serverFleet(t, s, groups, nothing)[0]
	if err := groups[0].fleet.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if a := send(t.Context(), client, lamp); a.err != nil || a.Username != "Lamp" || a.role() != coalescegrpc.Alone {
		t.Errorf("%s got %v, %v", a.role(), a.SimpleResponse, a.err)
	}
}
