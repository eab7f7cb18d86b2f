// Pulls an image under a policy.json, with the library that skopeo, Podman and CRI-O verify signatures with.
//
//	containers_policy POLICY REGISTRIES_D TOKEN HOST/REPOSITORY:TAG FOLDER
//
// It exits with 0 when the policy accepts the image. Build it outside the clone:
//
//	cp main.go EMPTY_FOLDER && cd EMPTY_FOLDER && go mod init policy && go get go.podman.io/image/v5@v5.42.1 &&
//	go build -tags containers_image_openpgp,exclude_graphdriver_btrfs -o containers_policy .
package main

import (
	"context"
	"fmt"
	"os"

	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"
)

func pull(policyFile, registriesFolder, token, image, folder string) error {
	policy, err := signature.NewPolicyFromFile(policyFile)
	if err != nil {
		return err
	}
	policyContext, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	source, err := docker.ParseReference("//" + image)
	if err != nil {
		return err
	}
	target, err := directory.NewReference(folder)
	if err != nil {
		return err
	}
	system := &types.SystemContext{
		RegistriesDirPath:           registriesFolder,
		DockerBearerRegistryToken:   token,
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	}
	// RemoveSignatures: a folder keeps signatures in the simple form only. They are verified before.
	options := &copy.Options{SourceCtx: system, RemoveSignatures: false, ReportWriter: os.Stdout}
	_, err = copy.Image(context.Background(), policyContext, target, source, options)
	return err
}

func main() {
	if len(os.Args) != 6 {
		fmt.Fprintln(os.Stderr, "usage: containers_policy POLICY REGISTRIES_D TOKEN HOST/REPOSITORY:TAG FOLDER")
		os.Exit(2)
	}
	if err := pull(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
