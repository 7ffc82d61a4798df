package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fnwire/fnwire/internal/ident"
	"github.com/fnwire/fnwire/internal/job"
	"github.com/fnwire/fnwire/rendezvous"
)

// certFile and keyFile hold a certificate for 127.0.0.1 which this process trusts.
var certFile, keyFile string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fnwire-test-")
	if err == nil {
		err = makeCertificate(dir)
	}
	if err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir) // a temporary directory
		os.Exit(code)
	}))
}

// makeCertificate must run before anything in the process asks for the system's roots, which are read once.
func makeCertificate(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	c := x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, &c, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return errors.Join(
		os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
		os.Setenv("SSL_CERT_FILE", certFile),
	)
}

// With a certificate the embedded NATS takes TLS only, and its URL says so.
func TestTLS(t *testing.T) {
	key := job.NewKey()
	line, _, stop := begin(t, "--json", "--listen", "127.0.0.1:0", "--websocket", "127.0.0.1:0", "--http", "off", "--allow", key.ID().String(), "--tls-cert", certFile, "--tls-key", keyFile)
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	var ready readyLine
	if err := json.Unmarshal(line, &ready); err != nil || !strings.HasPrefix(ready.URL, "tls://") {
		t.Fatalf("%s: %v", line, err)
	}
	id, err := ident.New()
	if err != nil {
		t.Fatal(err)
	}
	join := func(url string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := rendezvous.Dial(ctx, rendezvous.Config{URL: url, Key: key, Name: "a", Identity: id})
		if err != nil {
			return err
		}
		_, err = c.Join(ctx)
		return errors.Join(err, c.Close())
	}
	for _, url := range []string{ready.URL, ready.WebSocket} {
		if err := join(url); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	if !strings.HasPrefix(ready.WebSocket, "wss://") {
		t.Errorf("WebSocket at %q", ready.WebSocket)
	}
	if err := join(strings.Replace(ready.URL, "127.0.0.1", "localhost", 1)); !errors.Is(err, rendezvous.ErrUnreachable) {
		t.Errorf("certificate of another name: %v", err)
	}
}
