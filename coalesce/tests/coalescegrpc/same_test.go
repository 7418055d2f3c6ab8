package coalescegrpc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	pb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fleetcall/fleetcall/coalesce/coalescegrpc"
	"github.com/fleetcall/fleetcall/coalesce/local"
	"github.com/fleetcall/fleetcall/internal/rig"
)

type replies = local.Group[string, *coalescegrpc.Reply]

// one is a call of a pair.
type one struct {
	in       *pb.SimpleRequest // lamp if nil
	metadata []string          // keys and values
	opts     []grpc.CallOption
}

func (o one) send(ctx context.Context, client pb.TestServiceClient) answer {
	in := o.in
	if in == nil {
		in = lamp
	}
	return send(metadata.AppendToOutgoingContext(ctx, o.metadata...), client, in, o.opts...)
}

// merged makes two calls at the same time and says whether they became one. If not, both
// were inside the service at once.
func merged(t *testing.T, client func(*service, *replies) pb.TestServiceClient, a, b one) (merged bool, roles [2]string) {
	t.Helper()
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{}, open.wait(ctx)
	})
	group := new(replies)
	c := client(s, group)
	answers := [2]chan answer{make(chan answer, 1), make(chan answer, 1)}
	go func() { answers[0] <- a.send(t.Context(), c) }()
	<-s.started
	go func() { answers[1] <- b.send(t.Context(), c) }()
	rig.Wait(t, "the second call", func() error {
		merged = group.Stats().Followers == 1
		if !merged && len(s.started) == 0 {
			return errors.New("it is under way")
		}
		return nil
	})
	close(open)
	for i := range answers {
		got := <-answers[i]
		if got.err != nil {
			t.Fatal(got.err)
		}
		roles[i] = got.role()
	}
	return merged, roles
}

// pair is two calls, and whether they may share an answer.
type pair struct {
	name   string
	a, b   one
	opts   []coalescegrpc.Option
	merged bool
}

// pairs are the same for servers and clients.
func pairs() []pair {
	withUnknown := &pb.SimpleRequest{ResponseSize: 7}
	withUnknown.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	tenant := coalescegrpc.WithIdentity(func(ctx context.Context) string {
		md, ok := metadata.FromIncomingContext(ctx)
		if !ok {
			md, _ = metadata.FromOutgoingContext(ctx)
		}
		if got := md.Get("tenant"); len(got) == 1 {
			return got[0]
		}
		return ""
	})
	alice, bob := one{metadata: []string{"authorization", "Bearer alice"}}, one{metadata: []string{"authorization", "Bearer bob"}}
	inTenant := func(o one, tenant string) one {
		o.metadata = append([]string{"tenant", tenant}, o.metadata...)
		return o
	}
	language := func(values ...string) (o one) {
		for _, value := range values {
			o.metadata = append(o.metadata, "accept-language", value)
		}
		return o
	}
	languages := []coalescegrpc.Option{coalescegrpc.WithMetadata("Accept-Language", "accept-language")}
	return []pair{
		{name: "equal calls", merged: true},
		{name: "another request", b: one{in: &pb.SimpleRequest{ResponseSize: 8}}},
		{name: "a field that is not known here", b: one{in: withUnknown}},
		{name: "other metadata, which is not named", a: language("en"), b: language("de"), merged: true},
		{name: "other metadata, which is named", a: language("en"), b: language("de"), opts: languages},
		{name: "the same metadata, which is named", a: language("en", "de"), b: language("en", "de"), opts: languages, merged: true},
		{name: "two values and their join", a: language("en", "de"), b: language("en,de"), opts: languages},
		{name: "an empty value and none", a: language(""), b: language(), opts: languages},
		{name: "one caller's credentials twice", a: alice, b: alice},
		{name: "two callers' credentials", a: alice, b: bob},
		{name: "credentials and none", b: alice},
		{name: "a cookie", a: one{metadata: []string{"cookie", "s=1"}}, b: one{metadata: []string{"cookie", "s=1"}}},
		{name: "credentials that are named, the same", a: alice, b: alice, opts: []coalescegrpc.Option{coalescegrpc.WithMetadata("authorization")}, merged: true},
		{name: "credentials that are named, others", a: alice, b: bob, opts: []coalescegrpc.Option{coalescegrpc.WithMetadata("authorization")}},
		{name: "a cookie where only credentials of another name are named", a: one{metadata: []string{"cookie", "s=1"}}, b: one{metadata: []string{"cookie", "s=1"}}, opts: []coalescegrpc.Option{coalescegrpc.WithMetadata("authorization")}},
		{name: "public methods", a: alice, b: bob, opts: []coalescegrpc.Option{coalescegrpc.WithPublic()}, merged: true},
		{name: "two callers of one tenant", a: inTenant(alice, "acme"), b: inTenant(bob, "acme"), opts: []coalescegrpc.Option{tenant}, merged: true},
		{name: "two tenants", a: inTenant(alice, "acme"), b: inTenant(alice, "bolt"), opts: []coalescegrpc.Option{tenant}},
		{name: "two tenants without credentials", a: inTenant(one{}, "acme"), b: inTenant(one{}, "bolt"), opts: []coalescegrpc.Option{tenant}},
		{name: "two tenants of a public method", a: inTenant(alice, "acme"), b: inTenant(alice, "bolt"), opts: []coalescegrpc.Option{tenant, coalescegrpc.WithPublic()}},
		{name: "credentials of no tenant", a: alice, b: alice, opts: []coalescegrpc.Option{tenant}},
	}
}

func (p pair) check(t *testing.T, client func(*service, *replies) pb.TestServiceClient) {
	t.Helper()
	got, roles := merged(t, client, p.a, p.b)
	if got != p.merged {
		t.Errorf("merged: %t, want %t (roles %v)", got, p.merged, roles)
	}
	if p.merged && (roles[0] != "leader" || roles[1] != "local-follower") {
		t.Errorf("roles %v", roles)
	}
}

func TestAServerMergesCallsThatAreTheSame(t *testing.T) {
	for _, p := range append(pairs(),
		pair{name: "another authority", a: one{opts: []grpc.CallOption{grpc.CallAuthority("a.example")}}, merged: true},
		pair{name: "another authority, which is named", a: one{opts: []grpc.CallOption{grpc.CallAuthority("a.example")}}, opts: []coalescegrpc.Option{coalescegrpc.WithMetadata(":authority")}},
	) {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, func(s *service, group *replies) pb.TestServiceClient {
				client, _ := dial(t, listen(t, s, grpc.ChainUnaryInterceptor(serverInterceptor(t, local.Tier(group), p.opts...))))
				return client
			})
		})
	}
}

func TestAClientMergesCallsThatAreTheSame(t *testing.T) {
	token := grpc.PerRPCCredentials(bearer{})
	for _, p := range append(pairs(),
		pair{name: "another authority", a: one{opts: []grpc.CallOption{grpc.CallAuthority("a.example")}}},
		pair{name: "credentials of the call", a: one{opts: []grpc.CallOption{token}}, b: one{opts: []grpc.CallOption{token}}},
		pair{name: "credentials of the calls of a public method", a: one{opts: []grpc.CallOption{token}}, b: one{opts: []grpc.CallOption{token}}, opts: []coalescegrpc.Option{coalescegrpc.WithPublic()}, merged: true},
		pair{name: "other limits", a: one{opts: []grpc.CallOption{grpc.MaxCallRecvMsgSize(1 << 20)}}, merged: true},
	) {
		t.Run(p.name, func(t *testing.T) {
			p.check(t, func(s *service, group *replies) pb.TestServiceClient {
				client, _ := dial(t, listen(t, s), clientInterceptor(t, local.Tier(group), p.opts...))
				return client
			})
		})
	}
}

// bearer is the credentials of a call.
type bearer struct{}

func (bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer alice"}, nil
}
func (bearer) RequireTransportSecurity() bool { return false }

func TestCallsToTwoServersAreNotMerged(t *testing.T) {
	open := make(gate)
	s := newService(func(ctx context.Context, _ *pb.SimpleRequest) (*pb.SimpleResponse, error) {
		return &pb.SimpleResponse{}, open.wait(ctx)
	})
	merge := clientInterceptor(t, local.Tier(new(replies)))
	first, _ := dial(t, listen(t, s), merge)
	second, _ := dial(t, listen(t, s), merge)
	answers := crowd(t.Context(), []pb.TestServiceClient{first, second}, 1, lamp)
	<-s.started
	<-s.started
	close(open)
	for range cap(answers) {
		if a := <-answers; a.err != nil || a.role() != "leader" {
			t.Errorf("%s got %v", a.role(), a.err)
		}
	}
}

func TestACallWithAClientsCertificateIsOneWithCredentials(t *testing.T) {
	certificate, pool := selfSigned(t)
	for name, c := range map[string]struct {
		shown  []tls.Certificate
		opts   []coalescegrpc.Option
		merged bool
	}{
		"a certificate":                    {shown: []tls.Certificate{certificate}},
		"a certificate at a public method": {shown: []tls.Certificate{certificate}, opts: []coalescegrpc.Option{coalescegrpc.WithPublic()}, merged: true},
		"none":                             {merged: true},
	} {
		t.Run(name, func(t *testing.T) {
			pair{merged: c.merged}.check(t, func(s *service, group *replies) pb.TestServiceClient {
				server := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool})
				address := listen(t, s, grpc.Creds(server), grpc.ChainUnaryInterceptor(serverInterceptor(t, local.Tier(group), c.opts...)))
				client, _ := dial(t, address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: c.shown})))
				return client
			})
		})
	}
}

// selfSigned returns a certificate for both sides, and the pool that it is verified by.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-calm), NotAfter: time.Now().Add(60 * calm),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
