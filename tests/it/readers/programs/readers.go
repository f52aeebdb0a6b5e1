// Prints what Go's crypto/x509, which pgx and lib/pq use, says of each case.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func read(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return all, nil
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, certificate)
	}
}

func judge(directory string) error {
	chain, err := read(filepath.Join(directory, "chain.pem"))
	if err != nil {
		return err
	}
	// A root that cannot be parsed is left out, as AppendCertsFromPEM does.
	bundle, err := os.ReadFile(filepath.Join(directory, "bundle.pem"))
	if err != nil {
		return err
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	for _, certificate := range chain[1:] {
		intermediates.AddCert(certificate)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		DNSName: "localhost", Roots: roots, Intermediates: intermediates,
	})
	return err
}

func main() {
	for number := 0; ; number++ {
		directory := filepath.Join(os.Args[1], strconv.Itoa(number))
		if _, err := os.Stat(directory); err != nil {
			return
		}
		said := "accepted"
		if err := judge(directory); err != nil {
			said = strings.Join(strings.Fields(err.Error()), " ")
		}
		fmt.Printf("%d\t%s\n", number, said)
	}
}
