package shop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/coalescehttp"
	"github.com/fleetcall/fleetcall/coalesce/distributed"
	"github.com/fleetcall/fleetcall/examples/grpc/shoppb"
)

var (
	apiURL      string // of an API that answers with a rate
	shopAddress string // of a gRPC service
	merge       grpc.UnaryServerInterceptor
)

// startServers starts what the snippets ask. It ends with the process.
func startServers() (err error) {
	if answers, err = distributed.NewGroup[*coalescehttp.Answer](fleet, "answers", distributed.WithCodec(coalescehttp.Codec())); err != nil {
		return err
	}
	if calls, err = distributed.NewGroup[*coalescegrpc.Reply](fleet, "calls", distributed.WithCodec(coalescegrpc.Codec())); err != nil {
		return err
	}
	if merge, err = coalescegrpc.UnaryServerInterceptor(calls, []string{shoppb.Products_Get_FullMethodName}); err != nil {
		return err
	}
	apiURL = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"rate":1.25}`)
	})).URL
	server := grpc.NewServer()
	shoppb.RegisterProductsServer(server, shopService{})
	shopAddress, err = listen(server)
	return err
}

func listen(server *grpc.Server) (address string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String(), nil
}

func getProduct(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "Keyboard 49") }

// ask sends a request to a handler, and returns the status, the role and the body.
func ask(handler http.Handler, target string, fields ...string) string {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for _, field := range fields {
		name, value, _ := strings.Cut(field, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r)
	return fmt.Sprint(w.Code, " ", w.Header().Get(coalescehttp.RoleHeader), " ", w.Body)
}

// shopService is the service of examples/grpc.
type shopService struct {
	shoppb.UnimplementedProductsServer
}

func (shopService) Get(_ context.Context, in *shoppb.GetRequest) (*shoppb.Product, error) {
	if in.GetId() == "none" {
		return nil, status.Errorf(codes.NotFound, "there is no product %q", in.GetId())
	}
	return &shoppb.Product{Id: in.GetId(), Name: "Keyboard", Price: 49}, nil
}

// logged stands for an interceptor that logs.
func logged(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(ctx, req)
}

func tenantOf(context.Context) string { return tenant }

// call asks a service for a product, and returns the role and the name, or the error.
func call(server *grpc.Server, id string) string {
	address, err := listen(server)
	if err != nil {
		return err.Error()
	}
	defer server.Stop()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err.Error()
	}
	var header metadata.MD
	product, err := shoppb.NewProductsClient(conn).Get(ctx, &shoppb.GetRequest{Id: id}, grpc.Header(&header))
	if err = errors.Join(err, conn.Close()); err != nil {
		return err.Error()
	}
	return header.Get(coalescegrpc.RoleKey)[0] + " " + product.GetName()
}
