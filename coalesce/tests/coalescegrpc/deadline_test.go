package coalescegrpc_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/fleetcall/fleetcall/internal/rig"
	"github.com/fleetcall/fleetcall/internal/rig/redisrig"
)

func TestDeadlinesAreEachCallersOwn(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{Username: "Lamp"}, open.wait(ctx)
	})
	groups := newGroups(t, redisrig.Start(t), 2)
	clients := serverFleet(t, s, groups, nothing)
	hurried, cancel := context.WithTimeout(t.Context(), calm/6)
	defer cancel()
	left := crowd(hurried, clients[:1], 1, lamp)
	handler := <-s.started
	late := crowd(t.Context(), clients, 1, lamp)
	rig.Wait(t, "the others to wait", func() error {
		if a, b := groups[0].Stats().Local.Waiting, groups[1].Stats().Local.Waiting; a != 2 || b != 1 || groups[0].following.Load() != 1 {
			return fmt.Errorf("%d and %d", a, b)
		}
		return nil
	})
	cancel() // its deadline would end it as well
	if a := <-left; status.Code(a.err) != codes.Canceled {
		t.Errorf("the caller that left got %v", a.err)
	}
	rig.Wait(t, "the caller's leaving to be seen", func() error {
		if waiting := groups[0].Stats().Local.Waiting; waiting != 1 {
			return fmt.Errorf("%d wait", waiting)
		}
		return nil
	})
	if handler.Err() != nil {
		t.Error("the handler was cancelled, though others wait")
	}
	if at, has := handler.Deadline(); has && at.Before(deadlineOf(hurried).Add(calm/6)) {
		t.Errorf("the handler has the deadline of its first caller")
	}
	close(open)
	for range cap(late) {
		if a := <-late; a.err != nil || a.Username != "Lamp" {
			t.Errorf("%s got %v, %v", a.role(), a.SimpleResponse, a.err)
		}
	}
}

func TestACallerThatIsLateGetsDeadlineExceeded(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{}, open.wait(ctx)
	})
	groups := newGroups(t, redisrig.Start(t), 1)
	seen := make(chan error, 2)
	look := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		if _, has := ctx.Deadline(); has {
			ctx, cancel := context.WithTimeout(ctx, 1)
			defer cancel()
			resp, err := handler(ctx, req)
			seen <- err
			return resp, err
		}
		return handler(ctx, req)
	}
	client := serverFleet(t, s, groups, look)
	patient := crowd(t.Context(), client, 1, lamp)
	<-s.started
	late, cancel := context.WithTimeout(t.Context(), calm)
	defer cancel()
	if a := send(late, client[0], lamp); status.Code(a.err) != codes.DeadlineExceeded {
		t.Errorf("the late caller got %v", a.err)
	}
	if err := <-seen; status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("the interceptor before saw %v", err)
	}
	close(open)
	if a := <-patient; a.err != nil {
		t.Error(a.err)
	}
}

func TestTheHandlerEndsWhenItsLastCallerHasLeft(t *testing.T) {
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	groups := newGroups(t, redisrig.Start(t), 1)
	ctx, leave := context.WithCancel(t.Context())
	answers := crowd(ctx, serverFleet(t, s, groups, nothing), 3, lamp)
	gathered(t, groups, 3)
	leave()
	<-(<-s.started).Done()
	for range cap(answers) {
		if a := <-answers; status.Code(a.err) != codes.Canceled {
			t.Errorf("got %v", a.err)
		}
	}
}

func deadlineOf(ctx context.Context) (at time.Time) {
	at, _ = ctx.Deadline()
	return at
}
