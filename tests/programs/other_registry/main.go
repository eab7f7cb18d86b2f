// Serves github.com/google/go-containerregistry/pkg/registry: a registry that is not Distribution, behind a password.
//
// Usage: other_registry [-referrers] ADDRESS USER:PASSWORD. With -referrers it has the referrers API. It keeps
// manifests in memory. Build it outside the clone:
//
//	mkdir other_registry && cp THIS_FOLDER/main.go other_registry/ && cd other_registry && go mod init other_registry &&
//	go get github.com/google/go-containerregistry@v0.22.1 && go build -o other_registry .
package main

import (
	"crypto/subtle"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	hasReferrers := flag.Bool("referrers", false, "serve the referrers API")
	flag.Parse()
	if flag.NArg() != 2 {
		log.Fatal("usage: other_registry [-referrers] ADDRESS USER:PASSWORD")
	}
	address, account := flag.Arg(0), []byte(flag.Arg(1))
	inner := registry.New(registry.WithReferrersSupport(*hasReferrers))
	guarded := http.HandlerFunc(func(response http.ResponseWriter, request *http.Request) {
		user, password, _ := request.BasicAuth()
		if subtle.ConstantTimeCompare([]byte(user+":"+password), account) != 1 {
			response.Header().Set("WWW-Authenticate", `Basic realm="other"`)
			http.Error(response, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`,
				http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(response, request)
	})
	server := &http.Server{Addr: address, Handler: guarded, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}
