package redisrig

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fleetcall/fleetcall/internal/rig"
)

// TLS is a certificate authority that no program trusts by default, and its certificate
// for 127.0.0.1 and localhost.
type TLS struct {
	CAFile string // the authority's certificate, PEM

	certFile, keyFile string
}

// NewTLS creates an authority and a certificate. Their files are removed when the test
// ends.
func NewTLS(t testing.TB) *TLS {
	t.Helper()
	dir := rig.TempDir(t, "fleetcall-tls-")
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "fleetcall test authority"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "fleetcall test server"},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		// Nodes of a cluster are clients of each other.
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	authorityKey, serverKey := newKey(t), newKey(t)
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatalf("fleetcall: writing a certificate: %v", err)
		}
		return path
	}
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		t.Fatalf("fleetcall: encoding a key: %v", err)
	}
	return &TLS{
		CAFile:   write("ca.pem", "CERTIFICATE", sign(t, authority, authority, &authorityKey.PublicKey, authorityKey)),
		certFile: write("server.pem", "CERTIFICATE", sign(t, server, authority, &serverKey.PublicKey, authorityKey)),
		keyFile:  write("server-key.pem", "PRIVATE KEY", key),
	}
}

// Args returns arguments with which Start, StartCluster and StartSentinel start servers
// that accept only TLS.
func (x *TLS) Args() []string {
	return []string{
		"--tls-ca-cert-file", x.CAFile, "--tls-cert-file", x.certFile, "--tls-key-file", x.keyFile,
		"--tls-auth-clients", "no", "--tls-replication", "yes", "--tls-cluster", "yes",
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("fleetcall: making a key: %v", err)
	}
	return key
}

func sign(t testing.TB, c, by *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, by, public, key)
	if err != nil {
		t.Fatalf("fleetcall: making a certificate: %v", err)
	}
	return der
}

// clientTLS returns the TLS configuration of a client that trusts only this authority.
func clientTLS(t testing.TB, caFile string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatalf("fleetcall: reading a certificate: %v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("fleetcall: %s has no certificate", caFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}
