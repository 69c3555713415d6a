// Command registry is a container registry in memory that asks for a login, over TLS: what `image-pull-secret` pulls from.
package main

import (
	"crypto/subtle"
	"flag"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	address := flag.String("address", "127.0.0.1:0", "where to listen")
	certificate := flag.String("certificate", "", "file of the server's certificate")
	key := flag.String("key", "", "file of its private key")
	login := flag.String("login", "", "file of what has to follow `Basic ` in the header Authorization")
	flag.Parse()
	text, err := os.ReadFile(*login)
	if err != nil {
		log.Fatal(err)
	}
	wanted := []byte("Basic " + strings.TrimSpace(string(text)))
	images := registry.New()
	asks := http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		if subtle.ConstantTimeCompare([]byte(request.Header.Get("Authorization")), wanted) != 1 {
			answer.Header().Set("WWW-Authenticate", `Basic realm="acb-e2e"`)
			http.Error(answer, `{"errors":[{"code":"UNAUTHORIZED","message":"log in"}]}`, http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(answer, request)
	})
	log.Fatal(http.ListenAndServeTLS(*address, *certificate, *key, asks))
}
