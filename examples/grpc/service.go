package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/grpc/shoppb"
	"github.com/fleetcall/fleetcall/examples/internal/shop"
)

// service is one replica.
type service struct {
	shoppb.UnimplementedProductsServer
	fleet    *distributed.Fleet
	calls    *distributed.Group[*coalescegrpc.Reply]
	server   *grpc.Server
	database shop.Database
	log      *slog.Logger
}

func newService(client redis.UniversalClient, database shop.Database, log *slog.Logger, opts ...distributed.Option) (*service, error) {
	opts = append([]distributed.Option{distributed.WithNamespace("shop"), distributed.WithLogger(log)}, opts...)
	fleet, err := distributed.Open(client, opts...)
	if err != nil {
		return nil, err
	}
	s := &service{fleet: fleet, database: database, log: log}
	if err := s.register(); err != nil {
		return nil, errors.Join(err, fleet.Close(context.Background()))
	}
	return s, nil
}

// register makes the server. SetPrice is not named: each of its calls is a change.
func (s *service) register() (err error) {
	s.calls, err = distributed.NewGroup[*coalescegrpc.Reply](s.fleet, "calls", distributed.WithCodec(coalescegrpc.Codec()))
	if err != nil {
		return err
	}
	merge, err := coalescegrpc.UnaryServerInterceptor(s.calls, []string{shoppb.Products_Get_FullMethodName})
	if err != nil {
		return err
	}
	// Interceptors that look at a caller, for its rights or for a log, come before merge.
	s.server = grpc.NewServer(grpc.ChainUnaryInterceptor(s.logged, merge))
	shoppb.RegisterProductsServer(s.server, s)
	return nil
}

// Get makes service a shoppb.ProductsServer. It uses the context that it is given, which goes
// on for as long as anybody waits.
func (s *service) Get(ctx context.Context, in *shoppb.GetRequest) (*shoppb.Product, error) {
	product, err := s.database.Product(ctx, in.GetId())
	if errors.Is(err, shop.ErrNoProduct) {
		return nil, status.Errorf(codes.NotFound, "there is no product %q", in.GetId())
	}
	if err != nil {
		return nil, err
	}
	return &shoppb.Product{Id: product.ID, Name: product.Name, Price: product.Price}, nil
}

// SetPrice makes service a shoppb.ProductsServer. A Get that comes after it may still share
// one that has read the old price, and is under way: where that must not be, the handler
// shares the query instead, by a Group whose keys it knows and can forget.
func (s *service) SetPrice(ctx context.Context, in *shoppb.SetPriceRequest) (*shoppb.Product, error) {
	err := s.database.SetPrice(ctx, in.GetId(), in.GetPrice())
	if errors.Is(err, shop.ErrNoProduct) {
		return nil, status.Errorf(codes.NotFound, "there is no product %q", in.GetId())
	}
	if err != nil {
		return nil, err
	}
	return s.Get(ctx, &shoppb.GetRequest{Id: in.GetId()})
}

// logged logs each call, merged or not.
func (s *service) logged(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	began := time.Now()
	resp, err := handler(ctx, req)
	s.log.InfoContext(ctx, "call", "method", info.FullMethod, "code", status.Code(err), "took", time.Since(began))
	return resp, err
}

// run serves until ctx ends. Then calls under way have the grace period to end, and so have
// those that other replicas wait for: what this replica still leads after it is given up, and
// another replica runs it.
func (s *service) run(ctx context.Context, listener net.Listener, grace time.Duration) error {
	failed := make(chan error, 1)
	go func() { failed <- s.server.Serve(listener) }()
	select {
	case err := <-failed:
		return errors.Join(err, s.fleet.Close(ctx))
	case <-ctx.Done():
	}
	s.log.Info("stopping", "grace", grace)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		s.server.GracefulStop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-ending.Done():
	}
	err := s.fleet.Close(ending) // callers whose call is given up get UNAVAILABLE, and end
	s.server.Stop()
	<-stopped
	return errors.Join(err, <-failed)
}
