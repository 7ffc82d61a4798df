package selfsigned_test

import (
	"crypto/x509"
	"fmt"

	"github.com/fnwire/fnwire/experiments/peer/selfsigned"
)

func Example() {
	c, err := selfsigned.New()
	if err != nil {
		fmt.Println(err)
		return
	}
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		fmt.Println(err)
		return
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: selfsigned.ServerName})
	fmt.Println(err)
	_, err = cert.Verify(x509.VerifyOptions{Roots: x509.NewCertPool(), DNSName: selfsigned.ServerName})
	fmt.Println(err != nil)
	// Output:
	// <nil>
	// true
}
